"""Reading what another process, or another version, wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hv15.records.json_values import RecordError, as_object, as_text, parse_object, read_record, text_of


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ('{"a": 1', "not JSON"),
        ("[" * 100_000, "nested too deep"),
        (b"\xff", "not JSON"),
        ("[]", "expected a JSON object, found list"),
        ("null", "expected a JSON object, found NoneType"),
    ],
)
def test_what_is_no_object(text: str | bytes, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        parse_object(text)


def test_an_object_of_text_or_bytes() -> None:
    assert parse_object('{"a": [1, null]}') == parse_object(b'{"a": [1, null]}') == {"a": [1, None]}


def test_a_record_of_this_version_with_fields_of_a_later_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"version": 3, "name": "a", "later": True}))
    assert read_record(path, 3)["name"] == "a"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        (b"{", "not JSON"),
        (b'{"version": 2}', "is of version 2, but this hv15 understands only version 3"),
        (b"{}", "is of version None, but this hv15 understands only version 3"),
    ],
)
def test_a_record_that_cannot_be_used(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecordError, match=message):
        read_record(path, 3)


def test_a_folder_is_no_record(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot be read"):
        read_record(tmp_path, 1)


def test_values_that_must_be_of_a_type() -> None:
    assert as_object({"a": 1}) == {"a": 1}
    assert as_text("a") == "a"
    with pytest.raises(RecordError, match=r"expected an object, found \[1\]"):
        as_object([1])
    with pytest.raises(RecordError, match="expected text, found 1"):
        as_text(1)


def test_a_text_field_that_may_be_missing() -> None:
    assert [text_of(content, "a") for content in ({"a": "b"}, {"a": 1}, {})] == ["b", "", ""]
