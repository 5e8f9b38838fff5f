"""FILE or FILE:NUMBER, on a command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from hv15.errors import UserError
from hv15.weighted_file import read_weighted_file


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("a.safetensors", ("a.safetensors", None)),
        ("a.safetensors:0.5", ("a.safetensors", 0.5)),
        ("a:b.safetensors:-2", ("a:b.safetensors", -2.0)),
        ("a:b.safetensors", ("a:b.safetensors", None)),
        ("a.safetensors:nan", ("a.safetensors:nan", None)),
        (":0.5", (":0.5", None)),
    ],
)
def test_a_number_is_what_stands_after_the_last_colon(words: str, expected: tuple[str, float | None]) -> None:
    assert read_weighted_file(words) == (Path(expected[0]), expected[1])


@pytest.mark.parametrize("number", ["strong", "nan", "", "0,8"])
def test_what_is_no_number_behind_a_file_is_named(tmp_path: Path, number: str) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(UserError, match=f"found '{number}' behind the colon, expected a number"):
        read_weighted_file(f"{tmp_path}/a:{number}")


def test_a_file_with_such_a_name_goes_first(tmp_path: Path) -> None:
    (tmp_path / "a:2").touch()
    assert read_weighted_file(f"{tmp_path}/a:2") == (tmp_path / "a:2", None)
