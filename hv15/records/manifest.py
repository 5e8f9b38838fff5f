"""What a shard of the encoding has: the manifest that its job writes, and that training and the planner read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hv15.atomic import write_json
from hv15.records.json_values import Json, JsonObject, RecordError, as_object, read_record, text_of
from hv15.records.paths import EncodedKind

VERSION = 2


@dataclass(frozen=True, slots=True)
class EncodedClip:
    """One clip in the store."""

    key: str
    """Of the store's item."""
    start: int
    """First frame, at the target rate."""
    frames: int
    height: int
    width: int
    """Pixels."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of one thing that was to be encoded: a medium with its clips, or a text, which is its own item."""

    name: str = ""
    """The medium's file, as it was called when it was encoded; for messages."""
    clips: tuple[EncodedClip, ...] = ()
    skipped: str = ""
    """Why the medium cannot be used; "" if it can."""
    too_short_for: tuple[int, ...] = ()
    """Lengths in frames of which the medium gives no clip."""
    notes: tuple[str, ...] = ()
    """What a person should know of the medium: frames that were left out, colours that were taken as they are."""

    def to_json(self) -> JsonObject:
        """As JSON, without what is empty."""
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
    """The entries of one shard, by key. A key stands for content and settings; see hv15.cache.encoding."""

    kind: EncodedKind
    settings: JsonObject
    """What the values depend on, in full: the folder's name is its digest."""
    needs: str = ""
    """Digest of the keys that were asked for when it was written."""
    entries: dict[str, JsonObject] = field(default_factory=dict)
    """Entries as JSON: a plan looks at 100,000 of them, and needs a few fields only."""

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read a manifest.

        Raises:
            RecordError: it is missing, torn, or of another version.
        """
        content = read_record(path, VERSION)
        kind = content.get("kind")
        if kind not in ("latents", "text"):
            raise RecordError(f"is of the unknown kind {kind!r}")
        entries = as_object(content.get("entries"))
        if not all(isinstance(entry, dict) for entry in entries.values()):
            raise RecordError("holds an entry that is no object")
        return cls(
            "latents" if kind == "latents" else "text",
            as_object(content.get("settings")),
            text_of(content, "needs"),
            entries,  # type: ignore[arg-type]  # checked above, too many to copy
        )

    def write(self, path: Path) -> None:
        """Write it atomically.

        Raises:
            UserError: the disk is full, or the folder cannot be written.
        """
        content = {"kind": self.kind, "settings": self.settings, "needs": self.needs, "entries": self.entries}
        write_json(path, {"version": VERSION, **content})

    def put(self, key: str, entry: Entry) -> None:
        self.entries[key] = entry.to_json()

    def entry(self, key: str) -> Entry:
        """Return an entry.

        Raises:
            KeyError: there is none.
            RecordError: it is not what an entry looks like.
        """
        return read_entry(self.entries[key])

    def item_keys(self) -> Iterator[str]:
        """The keys of all items of the store that this manifest promises."""
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
    """The store's items of one entry: a text's own key, the clips of a medium, none if it was left out."""
    if "skipped" in entry:
        return []
    if "clips" not in entry:
        return [key]
    return [text_of(clip, "key") for clip in _list(entry["clips"]) if isinstance(clip, dict)]


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
