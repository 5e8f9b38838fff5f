"""Registers the projects that use a store in the store, so that `hv15 gc` of one never removes what another needs.

A project with the store in its own folder is registered by a relative path, so that both can be moved or copied.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hv15.atomic import write_json
from hv15.digest import short
from hv15.errors import UserError
from hv15.records.cache_paths import CachePaths
from hv15.records.json_values import RecordError, as_text, parse_object, read_record

VERSION = 1

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RegisteredProject:
    """A project that has used the store."""

    root: Path
    """Its folder, absolute."""
    note: Path
    """The file in the store that says so."""

    @property
    def is_reachable(self) -> bool:
        """Whether its folder exists now; it may have been moved or deleted, or be on a disk that is not mounted."""
        return self.root.is_dir()


def register(store_root: Path, root: Path) -> None:
    """Register a project in a store; nothing is written if it is registered already.

    A damaged note is written again; that of another version of hv15 is left alone.
    """
    root, store_root = root.resolve(), store_root.resolve()
    place = os.path.relpath(root, store_root) if store_root.is_relative_to(root) else str(root)
    note = CachePaths(store_root).projects / f"{short(place)}.json"
    if not _says(note, place):
        try:
            write_json(note, {"version": VERSION, "root": place})
        except UserError as error:  # a read-only store can be used without registering
            log.debug("%s", error)


def registered(store_root: Path) -> Iterator[RegisteredProject]:
    """Yield all registered projects, sorted by the names of their notes.

    If a note cannot be read, its own path stands for the project's root: what the project needs is not known.
    """
    for note in sorted(CachePaths(store_root).projects.glob("*.json")):
        try:
            root = (store_root / as_text(read_record(note, VERSION).get("root"))).resolve()
        except ValueError as error:  # RecordError, or the text can be no path
            log.warning("%s: %s", note, error)
            yield RegisteredProject(note, note)
            continue
        yield RegisteredProject(root, note)


def _says(note: Path, place: str) -> bool:
    """Whether a note names a project, or may name it in the format of another version."""
    try:
        content = parse_object(note.read_bytes())
    except (OSError, RecordError):
        return False
    version = content.get("version")
    return content.get("root") == place if version == VERSION else isinstance(version, int)
