"""Finds the encoded items that may be removed from a store: those that no project using it needs.

A project needs what its manifests name. While its encoding is unfinished, new items are not in a manifest yet, so
everything that was encoded with its settings is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from hv15.cache.encoding import settings_digest
from hv15.cache.register import RegisteredProject, registered
from hv15.cache.store import Store
from hv15.records.cache_paths import CachePaths
from hv15.records.found_runs import begun_experiments, reproductions
from hv15.records.json_values import RecordError, as_object
from hv15.records.manifest import Manifest
from hv15.records.paths import MANIFESTS, EncodedKind, ProjectPaths, manifest_name
from hv15.records.rules import ENCODING_RULES
from hv15.records.spec import Spec


@dataclass
class StoreUse:
    """The items of a store that projects need."""

    needed: dict[Path, dict[str, set[Path]]] = field(default_factory=dict)
    """Folder of the store -> the keys of items that manifests name -> the projects whose manifests do."""
    unfinished: dict[Path, Path] = field(default_factory=dict)
    """Folder of the store -> a project that has not finished encoding into it."""
    unreachable: list[RegisteredProject] = field(default_factory=list)
    """Projects whose folders do not exist, so that it is unknown what they need."""

    def forget_unused(self, root: Path, current: Mapping[Path, set[str]]) -> None:
        """Remove the needs of a project's manifests that its config no longer has.

        Args:
            root: the project's folder.
            current: the keys that its config needs, by folder of the store; none in folders that are not in it.
        """
        for folder, items in self.needed.items():
            kept = current.get(folder, set())
            for key, projects in items.items():
                if key not in kept:
                    projects.discard(root)


def use_of(store_root: Path) -> StoreUse:
    """Return what all projects that are registered in a store need."""
    use = StoreUse()
    for project in registered(store_root):
        if not project.is_reachable:
            use.unreachable.append(project)
            continue
        for paths in _runs(project.root):
            _add_manifests(use, store_root, paths)
            _add_unfinished(use, store_root, paths)
        _add_lost(use, store_root, ProjectPaths(project.root))
    return use


def removable(store_root: Path, use: StoreUse) -> Iterator[Path]:
    """Yield the files of items that no project needs."""
    for kind in get_args(EncodedKind):
        for folder in sorted(CachePaths(store_root).items(kind).glob("*")):
            if folder in use.unfinished:
                continue
            store, needed = Store(store_root, kind, folder.name), use.needed.get(folder, {})
            yield from (store.path(key) for key in store.all_keys() if not needed.get(key))


def _runs(root: Path) -> list[ProjectPaths]:
    """Return the paths of a project, its experiments and reproductions, each with manifests and specs of its own."""
    return [ProjectPaths(root), *begun_experiments(root), *reproductions(root)]


def _add_manifests(use: StoreUse, store_root: Path, paths: ProjectPaths) -> None:
    for kind in get_args(EncodedKind):
        for path in paths.manifests(kind).glob(f"*/{MANIFESTS}"):
            folder = Store(store_root, kind, path.parent.name).folder
            try:
                manifest = Manifest.load(path)
            except RecordError:  # its items are unknown
                use.unfinished.setdefault(folder, paths.root)
                continue
            items = use.needed.setdefault(folder, {})
            for key in manifest.item_keys():
                items.setdefault(key, set()).add(paths.root)


def _add_unfinished(use: StoreUse, store_root: Path, paths: ProjectPaths) -> None:
    """Add the encodings that were planned but whose manifest is not up to date yet."""
    for kind, rule in ENCODING_RULES.items():
        for path in paths.specs.glob(f"{rule}.*.json"):
            try:
                spec = Spec.load(path)
                settings = as_object(spec.wanted.get("settings"))
            except RecordError:  # it may be for any of them
                for folder in CachePaths(store_root).items(kind).glob("*"):
                    use.unfinished.setdefault(folder, paths.root)
                continue
            name = settings_digest(kind, settings)
            shard, _, shards = str(spec.wanted.get("shard")).partition(" of ")
            if not _answers(paths.manifests(kind) / name / manifest_name(shard, shards), spec):
                use.unfinished.setdefault(Store(store_root, kind, name).folder, paths.root)


def _add_lost(use: StoreUse, store_root: Path, paths: ProjectPaths) -> None:
    """Add everything for a project that has run and whose results are gone: its next run needs what they named."""
    if not paths.runs.is_dir() or any(paths.specs.glob("*.json")):
        return
    for kind in get_args(EncodedKind):
        if not any(paths.manifests(kind).glob(f"*/{MANIFESTS}")):
            for folder in CachePaths(store_root).items(kind).glob("*"):
                use.unfinished.setdefault(folder, paths.root)


def _answers(manifest: Path, spec: Spec) -> bool:
    """Whether a manifest was written for a spec, or was found to include everything that the spec asks for."""
    try:
        return Manifest.load(manifest).needs == spec.wanted.get("needs") or not spec.runs
    except RecordError:
        return False
