"""Which projects use a store: a note of each in it, so that `hv15 gc` of one never removes what another needs.

A project that has the store in its own folder is noted by the way from there, so that both can be moved or copied.
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
from hv15.records.json_values import RecordError, read_record, text_of

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
        """Whether its folder is there now: it may be on a disk that is not mounted, moved, or deleted."""
        return self.root.is_dir()


def register(store_root: Path, root: Path) -> None:
    """Note that a project uses the store; nothing is written when that is known."""
    root, store_root = root.resolve(), store_root.resolve()
    place = os.path.relpath(root, store_root) if store_root.is_relative_to(root) else str(root)
    note = _notes(store_root) / f"{short(place)}.json"
    if not note.exists():
        try:
            write_json(note, {"version": VERSION, "root": place})
        except UserError as error:  # a store that may only be read is used, not changed
            log.debug("%s", error)


def registered(store_root: Path) -> Iterator[RegisteredProject]:
    """Every project that is noted, in the order of their notes' names."""
    for note in sorted(_notes(store_root).glob("*.json")):
        try:
            content = read_record(note, VERSION)
        except RecordError as error:
            log.warning("%s: %s: not used", note, error)
            continue
        if root := text_of(content, "root"):
            yield RegisteredProject((store_root / root).resolve(), note)


def _notes(store_root: Path) -> Path:
    return store_root / "projects"
