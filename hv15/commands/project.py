"""`hv15 new`, `show`, `gc`, `repair`: what concerns a project as a whole."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path

from hv15.cache.plan import Plan
from hv15.cache.store import Kind, Store
from hv15.commands.options.project import Collect, New, Repair, Show
from hv15.errors import UserError
from hv15.project import Project
from hv15.records.paths import ProjectPaths
from hv15.units import size


def new(options: New) -> None:
    """Make a project folder."""
    from hv15.config import new_project

    config = new_project(options.folder, options.preset)
    print(f"{config}: edit it, then run, in the folder of hv15's Snakefile:")
    print("  " + shlex.join(["snakemake", "-d", str(config.parent.resolve()), str(ProjectPaths().lora)]))


def show(options: Show) -> None:
    """Print what a file was made from."""
    from hv15.commands.provenance import config_of, describe

    if options.as_config:
        print(config_of(options.file), end="")
    else:
        print(describe(options.file))


def collect(options: Collect) -> None:
    """Remove encoded items that no manifest of this cache names; with --unused, also what only old manifests name."""
    project = Project(options.config, options.overrides)
    if options.unused and options.yes:
        for plan in _plans(project):
            plan.forget_unused()
    unfinished = {plan.store.folder for plan in _plans(project) if not _is_finished(plan)}
    for folder in sorted(unfinished):
        print(f"{folder}: its encoding is not finished, so all of it is kept")
    count = total = 0
    for kind in ("latents", "text"):
        for path in _unnamed(project, kind, unfinished, options.unused):
            count, total = count + 1, total + path.stat().st_size
            if options.yes:
                path.unlink(missing_ok=True)
    done = "removed" if options.yes else "can be removed with --yes"
    print(f"{count} items, {size(total)} {done}")


def _plans(project: Project) -> tuple[Plan, ...]:
    return project.latents, project.texts


def _is_finished(plan: Plan) -> bool:
    """Whether manifests list all that the dataset needs now: until then, items may wait for theirs."""
    try:
        plan.entries()
    except UserError:
        return False
    return True


def _unnamed(project: Project, kind: Kind, unfinished: set[Path], unused: bool) -> list[Path]:
    """The store's files that no manifest of their settings lists; with `unused`, all that this config does not need."""
    from hv15.cache.plan import Manifest

    needed = {plan.store.folder: plan.needed_items() for plan in _plans(project)}
    unnamed: list[Path] = []
    for folder in sorted((project.cache / "store" / kind).glob("*")):
        if folder in unfinished:
            continue
        store = Store(project.cache, kind, folder.name)
        if unused:
            named = needed.get(folder, set())
        else:
            manifests = (project.cache / kind / folder.name).glob("*-of-*.json")
            named = {item for path in manifests for item in Manifest.load(path).items()}
        unnamed += [store.path(key) for key in store.all_keys() if key not in named]
    return unnamed


def repair(options: Repair) -> None:
    """Read every encoded item of the project and remove damaged ones: the next run encodes them again."""
    project = Project(options.config, options.overrides)
    counts: Counter[str] = Counter()
    for plan in _plans(project):
        for manifest in plan.manifests:
            for key in manifest.items():
                sound = plan.store.is_sound(key)
                counts["sound" if sound else "damaged or lost"] += 1
    print(", ".join(f"{number} {what}" for what, number in sorted(counts.items())) or "nothing is encoded yet")
    if counts["damaged or lost"]:
        print("the next snakemake call encodes them again")
