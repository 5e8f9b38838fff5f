"""A stamp differs after each change that a program or a person makes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hv15.stamp import stamp


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("one")
    return tmp_path / "file"


def test_it_stays_while_the_file_is_only_read(file: Path) -> None:
    before = stamp(file)
    assert file.read_text() == "one"
    assert stamp(file) == before == (3, file.stat().st_mtime_ns, file.stat().st_ino)


def test_another_length_is_seen_at_the_same_time(file: Path) -> None:
    before, times = stamp(file), file.stat()
    file.write_text("three")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert stamp(file) != before


def test_another_time_is_seen_to_the_nanosecond(file: Path) -> None:
    before, times = stamp(file), file.stat()
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    assert stamp(file) != before


def test_another_file_of_the_same_length_and_time_is_seen(file: Path) -> None:
    before, times = stamp(file), file.stat()
    other = file.with_name("other")
    other.write_text("two")
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(file)
    assert stamp(file) != before


def test_what_cannot_be_looked_at_has_none(file: Path) -> None:
    assert stamp(file.with_name("missing")) is None
    assert stamp(file / "in a file") is None
    assert stamp(file.with_name("x" * 300)) is None
