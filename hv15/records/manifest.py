"""The manifest of an encoding's shard, which its job writes and which training and the planner read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from hv15.atomic import write_json
from hv15.records.json_values import Json, JsonObject, RecordError, as_object, read_record, text_of
from hv15.records.paths import EncodedKind

VERSION = 2


@dataclass(frozen=True, slots=True)
class EncodedClip:
    """One clip in the store."""

    key: str
    """The key of the store's item."""
    start: int
    """First frame, at the target rate."""
    frames: int
    height: int
    width: int
    """Height and width are in pixels."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The result of encoding a medium, with its clips, or a text, which is a single item."""

    name: str = ""
    """The medium's file name when it was encoded, for messages."""
    clips: tuple[EncodedClip, ...] = ()
    skipped: str = ""
    """Why the medium cannot be used; "" if it can."""
    too_short_for: tuple[int, ...] = ()
    """The `target_frames` for which the medium is too short."""
    notes: tuple[str, ...] = ()
    """What the user should know of the medium: frames that were left out, colours that were used as they are."""

    def to_json(self) -> JsonObject:
        """Return the entry as JSON, without empty fields."""
        clips: list[Json] = [
            {"key": c.key, "start": c.start, "frames": c.frames, "height": c.height, "width": c.width}
            for c in self.clips
        ]
        content: JsonObject = {
            "name": self.name,
            "clips": clips,
            "skipped": self.skipped,
            "too_short_for": list(self.too_short_for),
            "notes": list(self.notes),
        }
        return {key: value for key, value in content.items() if value}


@dataclass
class Manifest:
    """The entries of one shard, by key. A key identifies content and settings; see hv15.cache.encoding."""

    kind: EncodedKind
    settings: JsonObject
    """The settings on which the values depend; the folder's name is their digest."""
    needs: str = ""
    """Digest of the keys that were needed when it was written."""
    entries: dict[str, JsonObject] = field(default_factory=dict)
    """Entries as JSON, because a plan reads only a few fields of up to 100,000 entries."""

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read a manifest.

        Raises:
            RecordError: it is missing, damaged, or of another version.
        """
        content = read_record(path, VERSION)
        kind = next((each for each in get_args(EncodedKind) if each == content.get("kind")), None)
        if kind is None:
            raise RecordError(f"is of the unknown kind {content.get('kind')!r}")
        entries = as_object(content.get("entries"))
        if not all(isinstance(entry, dict) for entry in entries.values()):
            raise RecordError("holds an entry that is not an object")
        return cls(
            kind,
            as_object(content.get("settings")),
            text_of(content, "needs"),
            entries,  # type: ignore[arg-type]  # checked above; too many to copy
        )

    def write(self, path: Path) -> None:
        """Write it atomically.

        Raises:
            UserError: the disk is full, or the folder cannot be written.
        """
        content = {"kind": self.kind, "settings": self.settings, "needs": self.needs, "entries": self.entries}
        write_json(path, {"version": VERSION, **content}, compact=True)

    def put(self, key: str, entry: Entry) -> None:
        self.entries[key] = entry.to_json()

    def entry(self, key: str) -> Entry:
        """Return an entry.

        Raises:
            KeyError: there is no such entry.
            RecordError: it is not a valid entry.
        """
        return read_entry(self.entries[key])

    def item_keys(self) -> Iterator[str]:
        """Yield the keys of all items in the store that this manifest lists."""
        for key, entry in self.entries.items():
            yield from item_keys(key, entry)


def read_entry(content: Mapping[str, Json]) -> Entry:
    """Return an entry from its JSON.

    Raises:
        RecordError: a clip lacks a field.
    """
    lengths = content.get("too_short_for")
    return Entry(
        name=text_of(content, "name"),
        clips=tuple(_clip(clip) for clip in _list(content.get("clips"))),
        skipped=text_of(content, "skipped"),
        too_short_for=tuple(number for number in _list(lengths) if isinstance(number, int)),
        notes=tuple(note for note in _list(content.get("notes")) if isinstance(note, str)),
    )


def item_keys(key: str, entry: Mapping[str, Json]) -> list[str]:
    """Return the keys of an entry's items in the store: a text's key, those of a medium's clips, none if skipped."""
    if "skipped" in entry:
        return []
    if "clips" not in entry:
        return [key]
    clips = entry["clips"]
    if not isinstance(clips, list):
        return []
    return [str(clip.get("key", "")) for clip in clips if isinstance(clip, dict)]


def _clip(value: Json) -> EncodedClip:
    if not isinstance(value, dict):
        raise RecordError(f"expected a clip, found {value!r:.60}")
    numbers = [value.get(name) for name in ("start", "frames", "height", "width")]
    start, frames, height, width = (number if isinstance(number, int) else -1 for number in numbers)
    if min(start, frames, height, width) < 0:
        raise RecordError(f"a clip without its sizes: {value!r:.80}")
    return EncodedClip(text_of(value, "key"), start, frames, height, width)


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []
