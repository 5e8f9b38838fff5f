"""Lines of JSON that are appended to a file, on a disk that has room and on one that has not."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hv15.runs.followed_file import append_object, last_objects


def test_lines_follow_one_another(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for number in range(3):
        append_object(path, {"number": number, "name": "caf\udce9"})
    assert path.read_bytes().count(b"\n") == 3
    assert [each["number"] for each in last_objects(path)] == [0, 1, 2]


def test_a_line_that_the_disk_takes_in_parts_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data)[:5]))
    append_object(tmp_path / "events.jsonl", {"name": "a name of some length"})
    assert list(last_objects(tmp_path / "events.jsonl")) == [{"name": "a name of some length"}]


def test_a_line_behind_a_torn_one_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = tmp_path / "events.jsonl", os.write

    def full(descriptor: int, data: bytes) -> int:
        if path.stat().st_size:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, bytes(data)[:5])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            append_object(path, {"number": 1})
    assert path.stat().st_size == 5
    append_object(path, {"number": 2})
    assert list(last_objects(path)) == [{"number": 2}]
