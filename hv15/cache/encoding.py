"""The items that have to be encoded, their shards and manifests.

A manifest is the declared output of a shard's job, in the project's own folder:
`results/manifests/<kind>/<settings digest>/<shard>-of-<shards>.json`. The items themselves are in the store, which any
number of projects can share. A manifest is complete if it lists everything that the shard needs now and the store still
has the items; it may list more, such as a clip that was removed from the dataset.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from hv15.cache.store import Store
from hv15.config import DatasetSettings
from hv15.data.media import MaskFile, Source
from hv15.digest import digest, short, text_digest
from hv15.errors import UserError
from hv15.records.json_values import JsonObject, RecordError
from hv15.records.manifest import Entry, Manifest, item_keys, read_entry
from hv15.records.paths import MANIFESTS, EncodedKind, manifest_name

log = logging.getLogger(__name__)

Needed_co = TypeVar("Needed_co", covariant=True)


class NeededClips(NamedTuple):
    """A medium that has to be cut into clips according to its dataset's settings, and encoded."""

    source: Source
    media: str
    """Key of the medium: sha256 of its bytes."""
    dataset: DatasetSettings


class NeededMask(NamedTuple):
    """A mask that has to be cut into clips as the medium that it belongs to."""

    file: MaskFile
    mask: str
    """Key of the mask: sha256 of its bytes."""
    source: Source
    media: str
    """Key of the medium."""
    dataset: DatasetSettings


def mask_key(mask: str, clip: str) -> str:
    """Return the store key of a clip's mask.

    Args:
        mask: key of the mask's file.
        clip: store key of the clip.
    """
    return text_digest(f"{mask}-{clip}")


@dataclass(frozen=True)
class ShardState:
    """What a plan has to know of a shard."""

    needs: str
    """Digest of the keys that it needs now."""
    recorded: JsonObject | None
    """The settings and needs that its manifest was made from; None if there is no readable manifest."""
    is_complete: bool
    """Whether its manifest lists everything that is needed now, and the store has all these items."""
    is_known: bool = True
    """Whether all that it needs is in some manifest of this encoding."""


def settings_digest(kind: EncodedKind, settings: JsonObject) -> str:
    """The name of an encoding's folders, in the store and among the manifests."""
    return short({"kind": kind, **settings})


@dataclass(frozen=True)
class Encoding(Generic[Needed_co]):
    """All items of one kind that a project needs, encoded in one way."""

    kind: EncodedKind
    store_root: Path
    """The folder that holds the store; projects may share it."""
    manifests_root: Path
    """The project's folder for manifests of this kind."""
    settings: JsonObject
    """Everything that affects an encoded value, and nothing else."""
    needed: Mapping[str, Needed_co]
    """What is needed now, by a key that identifies its content."""
    shards: int
    others: tuple[Path, ...] = ()
    """Folders with manifests of the same kind that the project's base config and other experiments have."""

    @cached_property
    def settings_digest(self) -> str:
        return settings_digest(self.kind, self.settings)

    @property
    def folder(self) -> Path:
        """The folder of this encoding's manifests."""
        return self.manifests_root / self.settings_digest

    @cached_property
    def store(self) -> Store:
        return Store(self.store_root, self.kind, self.settings_digest)

    def manifest_path(self, shard: int) -> Path:
        return self.folder / manifest_name(shard, self.shards)

    @cached_property
    def by_shard(self) -> Sequence[Mapping[str, Needed_co]]:
        """The needed keys of each shard; a key's shard depends only on the key."""
        parts: list[dict[str, Needed_co]] = [{} for _ in range(self.shards)]
        needed, shards = self.needed, self.shards
        for key in sorted(needed):
            parts[int(key[:8], 16) % shards][key] = needed[key]
        return parts

    def includes(self, other: Encoding[object]) -> bool:
        """Whether everything that another encoding needs is in this one."""
        if (self.kind, self.settings_digest, self.shards) != (other.kind, other.settings_digest, other.shards):
            return False
        return self.needed.keys() >= other.needed.keys()

    def needs_digest(self, shard: int) -> str:
        """Return the digest of the keys that a shard needs now."""
        return digest(list(self.by_shard[shard]))

    # -- manifests --------------------------------------------------------------------------------------------------

    def manifest(self, shard: int) -> Manifest | None:
        """Return the shard's manifest; None if it is missing, damaged, or of another version."""
        return self._manifests.get(self.manifest_path(shard).name)

    @cached_property
    def _manifests(self) -> dict[str, Manifest]:
        """All readable manifests of this encoding by file name, including those of other shard counts."""
        return _manifests_in(self.folder)

    @cached_property
    def known(self) -> dict[str, JsonObject]:
        """The entries of all manifests of this encoding by key, including those of other shard counts and runs."""
        found: dict[str, JsonObject] = {}
        for root in self.others:
            for manifest in _manifests_in(root / self.settings_digest).values():
                found.update(manifest.entries)
        for manifest in self._manifests.values():
            found.update(manifest.entries)
        return found

    @cached_property
    def _stored(self) -> set[str]:
        """The keys of all items in the store, from file names alone."""
        return set(self.store.all_keys())

    def is_complete(self, shard: int) -> bool:
        """Whether the shard's manifest lists everything that is needed now, and the store has all these items."""
        manifest = self.manifest(shard)
        if manifest is None:
            return not self.by_shard[shard]
        needed = self.by_shard[shard]
        if not manifest.entries.keys() >= needed.keys():
            return False
        items = map(item_keys, needed, map(manifest.entries.__getitem__, needed))
        return self._stored.issuperset(chain.from_iterable(items))

    def shard_state(self, shard: int) -> ShardState:
        manifest, is_complete = self.manifest(shard), self.is_complete(shard)
        return ShardState(
            self.needs_digest(shard),
            None if manifest is None else {"settings": manifest.settings, "needs": manifest.needs},
            is_complete,
            is_complete or self.is_known(shard),
        )

    def is_known(self, shard: int) -> bool:
        """Whether the manifests, also those of another shard count, list all that a shard needs."""
        return self.known.keys() >= self.by_shard[shard].keys()

    def new_manifest(self, shard: int) -> Manifest:
        """Return the manifest for the shard's job to fill, with listed entries that are not needed but still stored."""
        manifest, wanted = self.manifest(shard), self.by_shard[shard]
        kept = {
            key: entry
            for key, entry in (manifest.entries if manifest else {}).items()
            if key not in wanted and all(self.store.has(item) for item in item_keys(key, entry))
        }
        return Manifest(self.kind, self.settings, self.needs_digest(shard), kept)

    def entries(self) -> dict[str, Entry]:
        """Return the entries of everything that is needed now.

        Raises:
            UserError: a needed key is in no manifest.
        """
        found = self.known
        if absent := sum(key not in found for key in self.needed):
            things = "texts" if self.kind == "text" else self.kind
            raise UserError.at(
                self.folder,
                f"{absent} of {len(self.needed)} {things} are not encoded yet",
                hint="run `hv15 run` (or `snakemake`) first",
            )
        return {key: read_entry(found[key]) for key in self.needed}

    def needed_items(self) -> set[str]:
        """Return the keys of the store's items that are needed now and are encoded."""
        return {item for key in self.needed if key in self.known for item in item_keys(key, self.known[key])}

    def promised_items(self) -> set[str]:
        """Return the keys of the store's items that any manifest of this encoding names."""
        return {item for key, entry in self.known.items() for item in item_keys(key, entry)}

    # -- for gc -----------------------------------------------------------------------------------------------------

    def current_manifests(self) -> Iterator[Path]:
        """Yield the files of the shards' manifests, whether they are there."""
        return map(self.manifest_path, range(self.shards))

    def forget_unneeded_entries(self) -> None:
        """Reduce the manifests to what is needed now."""
        for shard in range(self.shards):
            manifest = self.manifest(shard)
            if manifest is not None and (unused := manifest.entries.keys() - self.needed.keys()):
                manifest.entries = {key: entry for key, entry in manifest.entries.items() if key not in unused}
                manifest.write(self.manifest_path(shard))


def _manifests_in(folder: Path) -> dict[str, Manifest]:
    """The readable manifests of a folder by file name."""
    found: dict[str, Manifest] = {}
    for path in sorted(folder.glob(MANIFESTS)):
        try:
            found[path.name] = Manifest.load(path)
        except RecordError as error:
            log.warning("%s: %s: it is made again when it is needed", path, error)
    return found


def describe(entries: Mapping[str, Entry]) -> Iterator[tuple[str, Entry]]:
    """Return the entries that the user should know of, by name: skipped, too short for some lengths, or with a note."""
    notable = [
        (entry.name or key, entry)
        for key, entry in entries.items()
        if entry.skipped or entry.too_short_for or entry.notes
    ]
    return iter(sorted(notable, key=lambda pair: pair[0]))
