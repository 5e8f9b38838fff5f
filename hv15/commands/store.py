"""`hv15 gc` and `hv15 repair`: the store of encoded items."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from hv15.cache.collect import removable, use_of
from hv15.cache.encoding import Encoding
from hv15.cache.register import register
from hv15.cache.store import BrokenItemError
from hv15.collection import collect_rarely
from hv15.commands.options.project import Collect, Repair
from hv15.errors import UserError
from hv15.project import Project
from hv15.records.found_runs import begun_experiments
from hv15.records.paths import MANIFESTS
from hv15.runs.control import refuse_living_run
from hv15.terminal_text import one_line
from hv15.units import size


def collect(options: Collect) -> None:
    """Remove the encoded items that no project with this store needs.

    Raises:
        UserError: it is not known what another project needs; or, with `--yes`, a run of this one is in progress.
    """
    collect_rarely()
    project = Project(options.config, options.overrides)
    if options.yes:
        refuse_living_run(project.root)
    register(project.cache, project.root)
    use = use_of(project.cache)
    encodings = _all_encodings(project)
    for each in encodings:
        if not all(each.is_complete(shard) for shard in range(each.shards)):
            use.unfinished.setdefault(each.store.folder, project.root)
    if use.unreachable and options.yes and not options.forget:
        names = ", ".join(str(gone.root) for gone in use.unreachable)
        raise UserError.at(
            project.cache,
            f"nothing is removed, because other projects that use this store are missing: {names}",
            hint="mount their disks, or add --forget to remove what only they need",
        )
    if options.unused:
        needed: dict[Path, set[str]] = {}
        for each in encodings:
            needed.setdefault(each.store.folder, set()).update(each.needed_items())
        use.forget_unused(project.root.resolve(), needed)
        if options.yes:
            _forget_unused(project, encodings)
    for folder, root in sorted(use.unfinished.items()):
        print(f"{one_line(f'{folder}: {root}')} has not finished encoding, so all of it is kept")
    for gone in use.unreachable:
        print(f"{one_line(str(gone.root))}: used this store and is missing now, so what it needs is not known")
    count = total = 0
    for path in removable(project.cache, use):
        try:
            status = path.stat()
            if options.yes:
                path.unlink()
        except FileNotFoundError:  # another gc removed it
            continue
        count, total = count + 1, total + status.st_size
    if options.forget and options.yes:
        for gone in use.unreachable:
            gone.note.unlink(missing_ok=True)
    print(f"{count} items, {size(total)} {'removed' if options.yes else 'can be removed with --yes'}")


def _all_encodings(project: Project) -> list[Encoding[object]]:
    """What the base config and its experiments encode, each once."""
    runs = (project.experiment(name) for name in ("", *project.experiments))
    return [*{id(each): each for run in runs for each in run.encodings}.values()]


def _forget_unused(project: Project, encodings: list[Encoding[object]]) -> None:
    """Reduce the manifests of all runs to what is needed now."""
    kept = {path for each in encodings for path in each.current_manifests()}
    for each in encodings:
        each.forget_unneeded_entries()
    for paths in (project.experiment("").paths, *begun_experiments(project.root)):
        for path in paths.all_manifests.glob(f"*/*/{MANIFESTS}"):
            if path not in kept:
                path.unlink(missing_ok=True)


def repair(options: Repair) -> None:
    """Read every encoded item of the project and remove damaged ones: the next run encodes them again.

    Raises:
        UserError: damaged items cannot be removed, for example because the folder is read-only.
    """
    project = Project(options.config, options.overrides)
    counts: Counter[str] = Counter()
    stuck: list[BrokenItemError] = []
    for encoding in _all_encodings(project):
        for key in sorted(encoding.promised_items()):
            try:
                encoding.store.read(key)
                counts["sound"] += 1
            except BrokenItemError as error:
                counts["damaged or lost"] += 1
                if encoding.store.has(key):
                    stuck.append(error)
    print(", ".join(f"{number} {what}" for what, number in sorted(counts.items())) or "nothing is encoded yet")
    if stuck:
        more = f" (and {len(stuck) - 1} more)" if len(stuck) > 1 else ""
        raise UserError(stuck[0].message + more, hint=stuck[0].hint)
    if counts["damaged or lost"]:
        print("the next run encodes them again")
