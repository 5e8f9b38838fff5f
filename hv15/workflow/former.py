"""Products of experiments that the config no longer has, or that were not asked for: an equal one copies them.

One that was renamed copies what it had made before: a sweep with another setting in its grid gives every experiment a
new name, and trains none of them again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from hv15.digest import digest
from hv15.records.found_runs import begun_experiments
from hv15.records.paths import RESULTS, ProjectPaths
from hv15.records.rules import Rule
from hv15.records.stage_names import stage_of_run, within_run
from hv15.workflow.made_from import MadeFromReader
from hv15.workflow.stage import Found, Stage
from hv15.workflow.twins import COPIED, KEPT


def former_stages(
    root: Path, experiments: Collection[str], stages: Sequence[Stage], reader: MadeFromReader
) -> Iterator[Stage]:
    """Yield what other experiments have made and is now to be made again.

    Args:
        root: the project folder.
        experiments: those that are planned.
        stages: theirs, and those of the base config.
    """
    due = [stage for stage in stages if stage.rule in COPIED and stage.found is not Found.RIGHT]
    trainings = {digest(stage.wanted): stage for stage in due if stage.rule == Rule.TRAIN}
    if not trainings:
        return
    for paths in begun_experiments(root):
        if paths.run in experiments:
            continue
        made_from = reader.made_from(paths.trained)
        now = None if made_from is None else trainings.get(digest(made_from))
        if now is None:
            continue
        for stage in due:
            if stage.run == now.run and (found := _in_run(stage, paths.run, root, reader)) is not None:
                yield found


def _in_run(stage: Stage, run: str, root: Path, reader: MadeFromReader) -> Stage | None:
    """The same stage of another run, if its products are there and are what this one has to make."""
    here, there = ProjectPaths(run=stage.run).results, Path(RESULTS) / run
    products = tuple(there / product.relative_to(here) for product in stage.products)
    if any(reader.made_from(root / product) != stage.wanted for product in products):
        return None
    name = stage_of_run(run, within_run(stage.name))
    details = {name: value for name, value in stage.details.items() if name != KEPT}
    return Stage(name, products, stage.wanted, Found.RIGHT, stage.wanted, details=details, is_former=True)
