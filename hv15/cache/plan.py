"""What has to be encoded, in which shard, and which manifest says that it is done.

A manifest is the declared output of a shard's job: `<root>/<kind>/<settings digest>/<shard>-of-<shards>.json`. It only
grows: a shard is asked for what the dataset needs plus what its manifest already lists, so that a clip taken out of
the dataset changes nothing and costs nothing when it comes back (`hv15 gc --unused` forgets it). When the store has
lost items that a manifest promises, the shard's next manifest is a new generation, and so its job runs again; planning
itself changes no file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from hv15.atomic import write_json
from hv15.cache.store import Kind, Store
from hv15.config import DatasetSettings
from hv15.data.media import Source
from hv15.digest import digest, short
from hv15.errors import UserError

FORMAT = 1
"""Version of the stored tensors and of the manifest; part of every settings digest."""

Needed = TypeVar("Needed")
Entry = dict[str, Any]


@dataclass(frozen=True)
class LatentNeed:
    """A medium that has to be cut into clips, by its dataset's rule, and encoded."""

    source: Source
    media: str
    """Key of the medium: sha256 of its bytes."""
    dataset: DatasetSettings


@dataclass
class Manifest:
    """The entries of one shard: for latents a source with its clips or the reason it was left out, for texts a key."""

    path: Path
    entries: dict[str, Entry] = field(default_factory=dict)
    generation: int = 0
    """How often items that it promised were lost and encoded again."""

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read a manifest; an absent or torn one is empty, because the store still knows every item."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] == FORMAT:
                return cls(path, dict(content["entries"]), int(content["generation"]))
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return cls(path)

    def save(self, kind: Kind, settings: Mapping[str, Any]) -> None:
        content = {"kind": kind, "settings": dict(settings), "generation": self.generation, "entries": self.entries}
        write_json(self.path, {"format": FORMAT, **content})

    def items(self) -> Iterator[str]:
        """The store keys that this manifest promises."""
        for key, entry in self.entries.items():
            yield from items_of(key, entry)


def items_of(key: str, entry: Entry) -> list[str]:
    """The store keys of one entry: a text's own key, the clips of a medium, none if it was left out."""
    if "skipped" in entry:
        return []
    return [clip["key"] for clip in entry["clips"]] if "clips" in entry else [key]


@dataclass(frozen=True)
class Plan(Generic[Needed]):
    """The items of one kind for one project: what is needed, by key, and where it goes."""

    kind: Kind
    root: Path
    settings: Mapping[str, Any]
    """Everything that changes an encoded value, and nothing else."""
    needed: Mapping[str, Needed]
    shards: int

    @cached_property
    def settings_digest(self) -> str:
        return short({"format": FORMAT, "kind": self.kind, **self.settings})

    @property
    def folder(self) -> Path:
        return self.root / self.kind / self.settings_digest

    @property
    def report_path(self) -> Path:
        """What was encoded and what was left out, over all shards."""
        return self.folder / "report.json"

    @cached_property
    def store(self) -> Store:
        return Store(self.root, self.kind, self.settings_digest)

    def manifest_path(self, shard: int) -> Path:
        return self.folder / f"{shard}-of-{self.shards}.json"

    @cached_property
    def manifests(self) -> list[Manifest]:
        return [Manifest.load(self.manifest_path(shard)) for shard in range(self.shards)]

    @cached_property
    def by_shard(self) -> list[dict[str, Needed]]:
        """The needed keys of each shard; a key's shard depends on the key alone."""
        parts: list[dict[str, Needed]] = [{} for _ in range(self.shards)]
        for key in sorted(self.needed):
            parts[int(key[:8], 16) % self.shards][key] = self.needed[key]
        return parts

    @cached_property
    def lost(self) -> list[set[str]]:
        """Per shard, the promised items that are not in the store; only names are looked at."""
        if not any(manifest.entries for manifest in self.manifests):
            return [set() for _ in self.manifests]
        present = set(self.store.all_keys())
        return [set(manifest.items()) - present for manifest in self.manifests]

    def generation(self, shard: int) -> int:
        """The generation of the shard's manifest when its job has run."""
        return self.manifests[shard].generation + bool(self.lost[shard])

    def shard_digest(self, shard: int) -> str:
        """The digest of what the shard's manifest must be: Snakemake compares this, and only this."""
        keys = self.by_shard[shard].keys() | self.manifests[shard].entries.keys()
        return digest([sorted(keys), self.generation(shard)])

    def new_manifest(self, shard: int) -> Manifest:
        """The manifest that the shard's job fills: with what is listed, no longer needed, and still in the store.

        To be asked before the job writes items, because lost ones decide its generation.
        """
        wanted, lost = self.by_shard[shard], self.lost[shard]
        entries = {
            key: entry
            for key, entry in self.manifests[shard].entries.items()
            if key not in wanted and lost.isdisjoint(items_of(key, entry))
        }
        return Manifest(self.manifest_path(shard), entries, self.generation(shard))

    def check_unchanged(self, shard: int, expected: str) -> None:
        """Stop when the dataset is no longer the one that the workflow planned for.

        Raises:
            UserError: the shard's digest differs from the planned one.
        """
        if expected and self.shard_digest(shard) != expected:
            raise UserError(
                "the dataset changed while the workflow was running",
                hint="run the same command again: what is encoded already is kept",
            )

    def entries(self) -> dict[str, Entry]:
        """The manifest entries of everything that is needed now.

        Raises:
            UserError: a needed key is in no manifest.
        """
        found = {key: entry for manifest in self.manifests for key, entry in manifest.entries.items()}
        if absent := [key for key in self.needed if key not in found]:
            raise UserError(
                f"{self.folder}: {len(absent)} of {len(self.needed)} {self.kind} are not encoded yet",
                hint="run `snakemake` (or `hv15 encode`) first",
            )
        return {key: found[key] for key in self.needed}

    def needed_items(self) -> set[str]:
        """The store keys of what is needed now, as far as it is encoded."""
        entries = {key: entry for manifest in self.manifests for key, entry in manifest.entries.items()}
        return {item for key in self.needed if key in entries for item in items_of(key, entries[key])}

    def forget_unused(self) -> None:
        """Let the manifests list only what is needed now, and remove those of other settings and shard counts."""
        for manifest in self.manifests:
            if unused := manifest.entries.keys() - self.needed.keys():
                manifest.entries = {key: entry for key, entry in manifest.entries.items() if key not in unused}
                manifest.save(self.kind, self.settings)
        current = {manifest.path for manifest in self.manifests}
        for path in (self.root / self.kind).glob("*/*-of-*.json"):
            if path not in current:
                path.unlink()

    def write_report(self, path: Path) -> dict[str, Any]:
        """Write how many items there are and which sources were left out, and why."""
        entries = self.entries()
        skipped = {entry.get("name", key): entry["skipped"] for key, entry in entries.items() if "skipped" in entry}
        report = {
            "kind": self.kind,
            "sources": len(entries),
            "items": sum(len(items_of(key, entry)) for key, entry in entries.items()),
            "skipped": dict(sorted(skipped.items())),
            "too_short_for": {e["name"]: e["too_short_for"] for e in entries.values() if "too_short_for" in e},
            "store": str(self.store.folder.relative_to(self.root)),
        }
        write_json(path, report)
        return report
