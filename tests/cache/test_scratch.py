"""`cache.scratch`: a training reads copies on a disk of its own machine, and never notices."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hv15 import atomic
from hv15.cache import scratch
from hv15.cache.batches import Stores
from hv15.cache.scratch import CopiedStore, copied
from hv15.cache.store import BrokenItemError, Store
from tests.commands.workbench import full_disk

KEY = "ab" * 32
DIGEST = "0123456789abcdef"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "cache", "text", DIGEST)
    store.write(KEY, {"text": torch.ones(2, 3), "glyphs": torch.ones(1, 3)}, {})
    return store


@pytest.fixture
def other_disk() -> Iterator[Path]:
    """A folder on another file system than the store's, where a rename from there fails."""
    folder = Path(f"/dev/shm/hv15-test-{os.getpid()}")
    folder.mkdir(mode=0o700)
    yield folder
    shutil.rmtree(folder)


def copy_of(folder: Path) -> Path:
    return folder / f"hv15-{os.getuid()}/store/text/{DIGEST}/ab/{KEY}.safetensors"


def reader(store: Store, folder: Path) -> CopiedStore:
    found = copied(Stores(store, store), str(folder), Path).latents
    assert isinstance(found, CopiedStore)
    return found


def is_whole(read: dict[str, torch.Tensor], value: float = 1) -> bool:
    return torch.equal(read["text"], torch.full((2, 3), value))


def test_an_item_is_copied_once_and_then_read_there(
    store: Store, other_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_whole(reader(store, other_disk).read(KEY))
    assert copy_of(other_disk).read_bytes() == store.path(KEY).read_bytes()
    assert [path.name for path in copy_of(other_disk).parent.iterdir()] == [f"{KEY}.safetensors"]
    monkeypatch.setattr(scratch.shutil, "copyfile", lambda *words: pytest.fail("copied again"))
    read = list[Path]()
    original = Store.read
    monkeypatch.setattr(Store, "read", lambda self, key: read.append(self.path(key)) or original(self, key))
    assert is_whole(reader(store, other_disk).read(KEY)), "another training on this machine"
    assert read == [copy_of(other_disk)]


def test_an_item_that_was_encoded_again_is_copied_again(store: Store, tmp_path: Path) -> None:
    copies = reader(store, tmp_path / "fast")
    copies.read(KEY)
    store.write(KEY, {"text": torch.full((2, 3), 2.0), "glyphs": torch.ones(1, 3)}, {})
    assert is_whole(copies.read(KEY), 2)
    assert copy_of(tmp_path / "fast").read_bytes() == store.path(KEY).read_bytes()


def test_a_damaged_copy_does_not_matter(store: Store, tmp_path: Path) -> None:
    copies = reader(store, tmp_path / "fast")
    copies.read(KEY)
    copy, item = copy_of(tmp_path / "fast"), store.path(KEY).stat()
    data = bytearray(copy.read_bytes())
    data[-1] ^= 1
    copy.write_bytes(data)
    os.utime(copy, ns=(item.st_atime_ns, item.st_mtime_ns))
    assert is_whole(copies.read(KEY))
    assert is_whole(store.read(KEY)), "the item itself is left alone"
    assert is_whole(copies.read(KEY))
    assert copy.read_bytes() == store.path(KEY).read_bytes()


def test_a_missing_or_damaged_item_is_found_whatever_was_copied(store: Store, tmp_path: Path) -> None:
    copies = reader(store, tmp_path / "fast")
    copies.read(KEY)
    store.remove(KEY)
    assert not copies.has(KEY)
    with pytest.raises(BrokenItemError, match="missing"):
        copies.read(KEY)


def test_a_twentieth_of_the_disk_stays_free(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    size = store.path(KEY).stat().st_size
    usage = shutil.disk_usage(tmp_path)
    for free, is_copied in ((usage.total // 20 + size - 1, False), (usage.total // 20 + size + 1, True)):
        monkeypatch.setattr(scratch.shutil, "disk_usage", lambda path, free=free: usage._replace(free=free))
        copies = reader(store, tmp_path / "fast")
        assert is_whole(copies.read(KEY))
        assert is_whole(copies.read(KEY))
        assert copy_of(tmp_path / "fast").exists() is is_copied
    assert [record.message for record in caplog.records if "nearly full" in record.message] == [
        f"cache.scratch: {copy_of(tmp_path / 'fast').parents[4]} is nearly full: no more items are copied"
    ], "said once"


def test_a_full_disk_ends_the_copying(store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The kernel refuses to write more."""
    copies = reader(store, tmp_path / "fast")
    with caplog.at_level(logging.WARNING), full_disk(100):
        assert all(is_whole(copies.read(KEY)) for _ in range(3))
    assert sum("no more items are copied" in record.message for record in caplog.records) == 1
    assert not [*copy_of(tmp_path / "fast").parent.iterdir()], "nothing half-written is left"


def test_a_disk_that_became_read_only(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is there is read there."""
    other = "cd" * 32
    store.write(other, {"text": torch.full((2, 3), 2.0), "glyphs": torch.ones(1, 3)}, {})
    reader(store, tmp_path / "fast").read(KEY)

    def refused(*words: object, **options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(atomic.tempfile, "mkstemp", refused)
    read = list[Path]()
    original = Store.read
    monkeypatch.setattr(Store, "read", lambda self, key: read.append(self.path(key)) or original(self, key))
    copies = reader(store, tmp_path / "fast")
    assert is_whole(copies.read(KEY))
    assert all(is_whole(copies.read(other), 2) for _ in range(2))
    assert read == [copy_of(tmp_path / "fast"), store.path(other), store.path(other)]
    assert sum("Read-only file system" in record.message for record in caplog.records) == 1, "said once"


def test_a_training_that_is_killed_while_it_copies(store: Store, tmp_path: Path) -> None:
    """Half a copy is never read, and is removed when the item is copied again."""
    folder = copy_of(tmp_path / "fast").parent
    if (process := os.fork()) == 0:

        def half(item: Path, part: Path) -> None:
            part.write_bytes(item.read_bytes()[: item.stat().st_size // 2])
            os.kill(os.getpid(), signal.SIGKILL)

        scratch.shutil.copyfile = half
        reader(store, tmp_path / "fast").read(KEY)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    [part] = folder.iterdir()
    assert part.stat().st_size > 0
    assert is_whole(reader(store, tmp_path / "fast").read(KEY))
    assert {*folder.iterdir()} == {part, copy_of(tmp_path / "fast")}, "it could be that of a training that runs"
    copy_of(tmp_path / "fast").unlink()
    os.utime(part, (0, 0))
    assert is_whole(reader(store, tmp_path / "fast").read(KEY))
    assert [*folder.iterdir()] == [copy_of(tmp_path / "fast")]


def test_variables_are_those_of_the_machine_that_trains(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = Stores(store, store)
    monkeypatch.delenv("NODE_DISK", raising=False)
    for text in ("$NODE_DISK/hv15", "${NODE_DISK}"):
        assert copied(stores, text, Path) is stores, "a machine without it"
    monkeypatch.setenv("NODE_DISK", str(tmp_path / "node"))
    for text in ("$NODE_DISK", "${NODE_DISK}", "${OTHER_DISK:-" + str(tmp_path / "node") + "}"):
        assert isinstance(copied(stores, text, Path).texts, CopiedStore)
    assert copied(stores, None, Path) is stores
    (tmp_path / "file").write_text("")
    assert copied(stores, str(tmp_path / "file"), Path) is stores


def test_a_folder_of_somebody_else_is_not_used(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a place that all may write to, copies could be anybody's."""
    stores = Stores(store, store)
    (tmp_path / f"hv15-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    assert copied(stores, str(tmp_path), Path) is stores
    monkeypatch.setattr(scratch.os, "getuid", lambda: 12345)
    (tmp_path / "hv15-12345").mkdir()
    assert copied(stores, str(tmp_path), Path) is stores
