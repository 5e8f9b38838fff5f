"""The content index: the sha256 of each media file, computed again only when the file's stamp has changed."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from hv15.atomic import atomic_path
from hv15.data.media import MediaError, Source, frame_files, stamp
from hv15.digest import digest, file_sha256

VERSION = 1
SAVE_EVERY = 64 << 30
"""Bytes that are hashed between saves, which a killed run has to repeat at most."""

log = logging.getLogger(__name__)

Entry = tuple[int, int, int, str]  # size, mtime_ns, inode, key


class FileIndex:
    """Remembers media keys in one JSON file. A damaged file is discarded and its keys are computed again."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._entries: dict[str, Entry] = self._load()
        self._learnt: dict[str, Entry] = {}

    def media_keys(self, sources: Sequence[Source], progress: Callable[[int, int], None] | None = None) -> list[str]:
        """Return the media key of each source: the sha256 (hex) of its bytes.

        The key of a folder of images is a digest of its files' hashes in natural order, so names do not matter.

        Args:
            sources: as returned by a scan.
            progress: called with (bytes hashed, bytes to hash) after each file; not called if nothing has changed.

        Raises:
            MediaError: a file cannot be read, or it changed while it was read.
        """
        names = [os.path.abspath(source.place) for source in sources]  # noqa: PTH100 (a Path costs ten times as much)
        stale = {
            name: source
            for name, source in zip(names, sources, strict=True)
            if (entry := self._entries.get(name)) is None
            or entry[0] != source.size
            or entry[1] != source.mtime_ns
            or entry[2] != source.inode
        }
        if stale:
            self._recognise_moved(stale)
        if stale:
            self._hash(stale, progress)
        return [self._entries[name][3] for name in names]

    def _recognise_moved(self, stale: dict[str, Source]) -> None:
        """Remove files that are known by another name with the same size, time and inode, as in a moved project."""
        known = {entry[:3]: entry for entry in self._entries.values()}
        for name, source in list(stale.items()):
            entry = known.get((source.size, source.mtime_ns, source.inode))
            if entry is not None and source.kind != "frames":
                self._learn(name, entry)
                del stale[name]
        if self._learnt:
            self._save()

    def _hash(self, stale: dict[str, Source], progress: Callable[[int, int], None] | None) -> None:
        total, done, saved = sum(source.size for source in stale.values()), 0, 0
        errors: list[MediaError] = []
        pool = ThreadPoolExecutor(max_workers=min(8, (os.cpu_count() or 1) + 1), thread_name_prefix="hash")
        try:
            futures = {pool.submit(_media_key, source): name for name, source in stale.items()}
            for future in as_completed(futures):
                name = futures[future]
                source = stale[name]
                done += source.size
                try:
                    self._learn(name, (source.size, source.mtime_ns, source.inode, future.result()))
                except MediaError as error:
                    errors.append(error)
                if progress:
                    progress(done, total)
                if done - saved > SAVE_EVERY:
                    self._save()
                    saved = done
        finally:  # keep the finished keys, also when the user interrupts
            pool.shutdown(wait=True, cancel_futures=True)
            self._save()
        if errors:
            more = f" (and {len(errors) - 1} more files)" if len(errors) > 1 else ""
            raise MediaError(errors[0].message + more, hint=errors[0].hint)

    def _load(self) -> dict[str, Entry]:
        try:
            stored = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning("%s: cannot be read (%s): all media files are hashed again", self.path, error)
            return {}
        files = stored.get("files") if isinstance(stored, dict) and stored.get("version") == VERSION else None
        if not isinstance(files, dict):
            log.warning("%s: not an index of this version: all media files are hashed again", self.path)
            return {}
        return {name: tuple(entry) for name, entry in files.items() if _is_entry(entry)}

    def _learn(self, name: str, entry: Entry) -> None:
        self._entries[name] = self._learnt[name] = entry

    def _save(self) -> None:
        """Add new keys to the file, to which another project may also have added some."""
        text = json.dumps(
            {"version": VERSION, "files": self._load() | self._learnt}, separators=(",", ":"), ensure_ascii=True
        )
        with atomic_path(self.path) as temporary:
            temporary.write_text(text, encoding="ascii")


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, list)
        and len(entry) == 4
        and isinstance(entry[3], str)
        and len(entry[3]) == 64
        and all(type(number) is int for number in entry[:3])
    )


def _media_key(source: Source) -> str:
    try:
        if source.kind == "frames":
            key = digest([file_sha256(path) for path in frame_files(source.path)])
        else:
            key = file_sha256(source.path)
        now = stamp(source.path, source.kind)
    except OSError as error:
        message = f"{source.path}: cannot be read: {error.strerror}"
        raise MediaError(message, hint="check the file's permissions") from error
    if now != (source.size, source.mtime_ns, source.inode):
        raise MediaError(f"{source.path}: changed while it was read", hint="wait until it is complete, then run again")
    return key
