"""What is remembered of complete encodings is what looking at every item finds."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hv15.cache.complete import CompleteEncodings
from hv15.cache.encoding import Encoding, ShardState
from tests.cache.test_encoding import KEYS, finish, make


def remembered(root: Path, encoding: Encoding[str]) -> list[ShardState]:
    memory = CompleteEncodings(root / "complete.json")
    states = memory.shards(encoding)
    memory.save()
    return states


def found(encoding: Encoding[str]) -> list[ShardState]:
    return [encoding.shard_state(shard) for shard in range(encoding.shards)]


def settle(root: Path) -> None:
    """Everything was written a while ago."""
    for path in sorted(root.rglob("*"), reverse=True):
        os.utime(path, (time.time() - 60, time.time() - 60))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A complete encoding that was planned once."""
    finish(make(tmp_path))
    settle(tmp_path)
    assert all(state.is_complete for state in remembered(tmp_path, make(tmp_path)))
    return tmp_path


def test_it_is_known_again_without_looking_at_an_item_or_manifest(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = found(make(root))
    monkeypatch.setattr(Encoding, "shard_state", lambda *_: pytest.fail("looked again"))
    assert remembered(root, make(root)) == expected


def tear(root: Path) -> None:
    path = make(root).manifest_path(2)
    path.write_bytes(path.read_bytes()[:-7])


def replace(root: Path) -> None:
    """The manifest of another need, with the same size and time."""
    path = make(root).manifest_path(2)
    before = path.stat()
    copy = path.with_suffix(".tmp")
    copy.write_text(path.read_text().replace('"needs":"', '"needs":"0')[:-1])
    copy.replace(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], None]] = {
    "a lost item": lambda root: make(root).store.remove(KEYS[5]),
    "a lost folder": lambda root: shutil.rmtree(make(root).store.path(KEYS[0]).parent),
    "a lost store": lambda root: shutil.rmtree(root / "cache"),
    "a lost manifest": lambda root: make(root).manifest_path(1).unlink(),
    "a torn manifest": tear,
    "another manifest": replace,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_any_change_is_seen(root: Path, change: Callable[[Path], None]) -> None:
    before = found(make(root))
    change(root)
    after = found(make(root))
    assert after != before
    assert remembered(root, make(root)) == after


@pytest.mark.parametrize(
    "wanted",
    [{"keys": KEYS[:-1]}, {"keys": [*KEYS, "0" * 64]}, {"shards": 3}, {"model": "another"}],
    ids=["fewer", "more", "other shards", "other settings"],
)
def test_other_needs_are_looked_at(root: Path, wanted: dict[str, object]) -> None:
    encoding = make(root, **wanted)  # type: ignore[arg-type]  # a table of its arguments
    assert remembered(root, encoding) == found(encoding)


def test_a_store_that_has_just_changed_is_not_trusted(tmp_path: Path) -> None:
    """A second change within the clock's tick would not show."""
    finish(make(tmp_path))
    remembered(tmp_path, make(tmp_path))
    assert not (tmp_path / "complete.json").exists()


def test_what_is_not_complete_is_not_remembered(tmp_path: Path) -> None:
    finish(make(tmp_path), 0, 1)
    settle(tmp_path)
    remembered(tmp_path, make(tmp_path))
    assert not (tmp_path / "complete.json").exists()
