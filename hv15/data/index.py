"""The content index: the sha256 of each media file, computed again only when the file's stamp has changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import cast

from hv15.data.media import MediaError, MediaFile, frame_files, stamp
from hv15.digest import digest, file_sha256
from hv15.records.json_values import Json
from hv15.remembered import Memory

VERSION = 2
SAVE_EVERY = 64 << 30
"""Bytes that are hashed between saves, which a killed run has to repeat at most."""

_BATCH_FILES, _BATCH_BYTES = 64, 8 << 20
"""What one thread is given at a time: handing over each of 50,000 small files would take longer than hashing them."""


class FileIndex:
    """Remembers media keys in one file."""

    def __init__(self, path: Path) -> None:
        self._memory = Memory(path, VERSION, "media files are hashed again")

    def media_keys(self, sources: Sequence[MediaFile], progress: Callable[[int, int], None] | None = None) -> list[str]:
        """Return the media key of each source: the sha256 (hex) of its bytes.

        The key of a folder of images is a digest of its files' hashes in natural order, so names do not matter.

        Args:
            sources: as a scan finds them, clips or masks.
            progress: called with (bytes hashed, bytes to hash) after each file; not called if nothing has changed.

        Raises:
            MediaError: a file cannot be read, or it changed while it was read.
        """
        names = _absolute(sources)
        entries = cast("dict[str, list[int | str]]", self._memory.entries)  # their file has a digest
        stale = {
            name: each
            for name, each in zip(names, sources, strict=True)
            if (known := entries.get(name)) is None or known[:3] != [each.size, each.mtime_ns, each.inode]
        }
        if stale:
            self._recognise_moved(stale)
        if stale:
            self._hash(stale, progress)
        return [str(entries[name][3]) for name in names]

    def known_key(self, path: Path, size: int, mtime_ns: int, inode: int) -> str | None:
        """The key of a file with this stamp, if it was hashed already."""
        entry = self._memory.entries.get(os.path.abspath(path))  # noqa: PTH100 (as in _absolute)
        return _key_of(entry) if _is_of(entry, size, mtime_ns, inode) else None

    def _recognise_moved(self, stale: dict[str, MediaFile]) -> None:
        """Remove files that are known by another name with the same size, time and inode, as in a moved project."""
        known = {tuple(entry[:3]): _key_of(entry) for entry in self._memory.entries.values() if isinstance(entry, list)}
        for name, source in list(stale.items()):
            key = known.get((source.size, source.mtime_ns, source.inode))
            if key is not None and source.kind != "frames":
                self._learn(name, source, key)
                del stale[name]
        self._memory.save()

    def _hash(self, stale: Mapping[str, MediaFile], progress: Callable[[int, int], None] | None) -> None:
        total, done, saved = sum(source.size for source in stale.values()), 0, 0
        errors: list[MediaError] = []
        pool = ThreadPoolExecutor(max_workers=min(8, (os.cpu_count() or 1) + 1), thread_name_prefix="hash")
        try:
            for future in as_completed([pool.submit(_hashed, batch) for batch in _batches(stale)]):
                for name, key in future.result():
                    if isinstance(key, MediaError):
                        errors.append(key)
                    else:
                        self._learn(name, stale[name], key)
                    done += stale[name].size
                    if progress:
                        progress(done, total)
                if done - saved > SAVE_EVERY:
                    self._memory.save()
                    saved = done
        finally:  # keep the finished keys, also when the user interrupts
            pool.shutdown(wait=True, cancel_futures=True)
            self._memory.save()
        if errors:
            more = f" (and {len(errors) - 1} more files)" if len(errors) > 1 else ""
            raise MediaError(errors[0].path, errors[0].reason + more, hint=errors[0].hint)

    def _learn(self, name: str, source: MediaFile, key: str) -> None:
        self._memory.learn(name, [source.size, source.mtime_ns, source.inode, key])


def _is_of(entry: Json, *stamp: int) -> bool:
    return isinstance(entry, list) and entry[:3] == [*stamp]


def _key_of(entry: Json) -> str:
    return str(entry[3]) if isinstance(entry, list) else ""


def _absolute(sources: Sequence[MediaFile]) -> list[str]:
    """The absolute path of each source. Each folder is looked at once: there may be 100,000 files in it."""
    folders: dict[str, str] = {}
    names = []
    for source in sources:
        folder, slash, name = source.place.rpartition("/")
        if folder not in folders:
            folders[folder] = os.path.abspath(folder or slash or ".").rstrip("/")  # noqa: PTH100 (text, as the rest)
        names.append(f"{folders[folder]}/{name}")
    return names


def _batches(sources: Mapping[str, MediaFile]) -> Iterator[list[tuple[str, MediaFile]]]:
    """Split files into what one thread hashes at a time."""
    batch: list[tuple[str, MediaFile]] = []
    size = 0
    for name, source in sources.items():
        batch.append((name, source))
        size += source.size
        if len(batch) == _BATCH_FILES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _hashed(batch: Sequence[tuple[str, MediaFile]]) -> list[tuple[str, str | MediaError]]:
    """The key of each file, or why it has none."""
    found: list[tuple[str, str | MediaError]] = []
    for name, source in batch:
        try:
            found.append((name, _media_key(source)))
        except MediaError as error:
            found.append((name, error))
    return found


def _media_key(source: MediaFile) -> str:
    try:
        if source.kind == "frames":
            key = digest([file_sha256(path) for path in frame_files(source.path)])
        else:
            key = file_sha256(source.place)
        now = stamp(source.place, source.kind)
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
        raise MediaError(source.path, reason, hint="check the file's permissions") from error
    if now != (source.size, source.mtime_ns, source.inode):
        raise MediaError(source.path, "changed while it was read", hint="wait until it is complete, then run again")
    return key
