"""What is remembered between calls: added to by many processes, never wrong, never needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from hv15.records.json_values import JsonObject
from hv15.remembered import Memory

COST = "it takes a while"


def memory(path: Path, version: int = 1, **learnt: int) -> Memory:
    """A memory that has just learnt something."""
    made = Memory(path, version, COST)
    for name, value in learnt.items():
        made.learn(name, value)
    return made


def entries(path: Path, version: int = 1) -> JsonObject:
    return Memory(path, version, COST).entries


@pytest.fixture
def path(tmp_path: Path) -> Path:
    memory(tmp_path / "folder/memory.json", a=1, b=2).save()
    return tmp_path / "folder/memory.json"


def test_what_was_saved_is_known(path: Path) -> None:
    assert entries(path) == {"a": 1, "b": 2}


def test_two_writers_add_to_one_file(path: Path) -> None:
    one, other = memory(path, c=3), memory(path, a=9, d=4)
    one.save()
    other.save()
    assert entries(path) == {"a": 9, "b": 2, "c": 3, "d": 4}


def test_nothing_new_is_nothing_written(path: Path) -> None:
    before = path.stat().st_mtime_ns, path.stat().st_ino
    again = memory(path)
    again.save(keep=lambda name: False)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


def test_what_is_not_kept_is_forgotten(path: Path) -> None:
    other = memory(path, c=3)
    other.save()
    memory(path, d=4).save(keep="acd".__contains__)
    assert entries(path) == {"a": 1, "c": 3, "d": 4}


def test_each_flipped_bit_is_found(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is taken from a damaged file; the person is told what that costs."""
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        caplog.clear()
        assert entries(path) == {}, place
        assert f"{path}: not used" in caplog.text
        assert COST in caplog.text


@pytest.mark.parametrize("length", [0, 1, -1])
def test_a_torn_file_is_made_anew(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])
    memory(path, c=3).save()
    assert entries(path) == {"c": 3}


def test_another_version_is_not_used(path: Path) -> None:
    assert entries(path, version=2) == {}
    memory(path, 2, a=7).save()
    assert entries(path, version=2) == {"a": 7}


def test_no_file_is_no_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert entries(tmp_path / "none.json") == {}
    assert caplog.records == []


def test_a_file_that_cannot_be_written_is_done_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file in the place of the folder: root may write into any folder."""
    (tmp_path / "folder").write_text("no folder")
    made = memory(tmp_path / "folder/memory.json", a=1)
    made.save()
    assert made.entries == {"a": 1}
    assert f"cannot be written: File exists: {COST}" in caplog.text
