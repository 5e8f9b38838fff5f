"""The runs of a project that are found in its folder: experiments, even if the config lost them, and reproductions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hv15.records.paths import REPRODUCED, RESULTS, ProjectPaths


def trained_experiments(root: Path) -> Iterator[ProjectPaths]:
    """Yield the experiments that have been trained, sorted by name."""
    for path in sorted(root.glob(f"{RESULTS}/*/train/metrics.jsonl")):
        yield ProjectPaths(root, path.parts[-3])


def begun_experiments(root: Path) -> Iterator[ProjectPaths]:
    """Yield the experiments of which anything was planned or encoded, even if the config lost them, by name."""
    base = ProjectPaths(root)
    signs = (base.specs.name, base.all_manifests.name)
    found = {path.parts[-2] for sign in signs for path in root.glob(f"{RESULTS}/*/{sign}")}
    yield from (ProjectPaths(root, run) for run in sorted(found))


def reproductions(root: Path) -> Iterator[ProjectPaths]:
    """Yield the reproductions that have begun, sorted."""
    for path in sorted(root.glob(f"{RESULTS}/{REPRODUCED}/*/")):
        yield ProjectPaths(root).reproduction(path.name)


def runs_with_samples(root: Path) -> Iterator[ProjectPaths]:
    """Yield the base config's run, and the experiments with samples or previews, sorted by name."""
    base = ProjectPaths(root)
    yield base
    found = {path.parts[-2] for path in root.glob(f"{RESULTS}/*/{base.samples.name}")}
    found |= {path.parts[-3] for path in root.glob(f"{RESULTS}/*/{base.training.name}/{base.previews.name}")}
    yield from (ProjectPaths(root, run) for run in sorted(found))
