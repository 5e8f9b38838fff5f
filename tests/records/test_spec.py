"""What the planner writes and a job reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hv15.errors import UserError
from hv15.records.json_values import RecordError
from hv15.records.spec import Spec

SPEC = Spec({"a": [1, 2.5, None], "b": "c"}, {"paths": ["d"]}, runs=True, planned=12)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    for spec in (SPEC, Spec({})):
        spec.write(tmp_path / "specs/a.json")
        assert Spec.load(tmp_path / "specs/a.json") == Spec.read(tmp_path / "specs/a.json") == spec


def test_equal_specs_are_equal_bytes(tmp_path: Path) -> None:
    SPEC.write(tmp_path / "a.json")
    Spec({"b": "c", "a": [1, 2.5, None]}, {"paths": ["d"]}, True, 12).write(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_a_time_is_only_in_a_spec_that_replaces_something(tmp_path: Path) -> None:
    """So the spec of a product that does not exist yet keeps its bytes and its time from plan to plan."""
    Spec({}).write(tmp_path / "a.json")
    assert "planned" not in json.loads((tmp_path / "a.json").read_text())


def test_fields_of_a_later_hv15_are_passed_over(tmp_path: Path) -> None:
    SPEC.write(tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps(content | {"later": 1}))
    assert Spec.load(tmp_path / "a.json") == SPEC


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        '{"version": 1',
        '{"version": 1}',
        '{"version": 1, "wanted": []}',
        '{"version": 1, "wanted": {}, "details": 1}',
        '{"version": 0, "wanted": {}}',
    ],
)
def test_what_is_no_spec(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RecordError):
        Spec.load(path)
    with pytest.raises(UserError, match=r"a\.json: not usable as a spec") as caught:
        Spec.read(path)
    assert "start the run again" in caught.value.hint
