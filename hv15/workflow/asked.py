"""What is asked for: the runs of a project that targets belong to, and the stages of these."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from hv15.cache.complete import CompleteEncodings
from hv15.collection import paused_collection
from hv15.errors import UserError
from hv15.plan.beforehand import remembered_checks
from hv15.project import Project
from hv15.records.paths import ProjectPaths
from hv15.records.rules import Rule, TargetRule
from hv15.workflow.comparing import asks_for_comparison, comparison_stage, is_compared
from hv15.workflow.former import former_stages
from hv15.workflow.made_from import MadeFromReader
from hv15.workflow.planner import Planner, refuse_folders
from hv15.workflow.rule_names import run_of_target
from hv15.workflow.stage import Stage
from hv15.workflow.stages import StageBuilder


def make_planner(project: Project, *, targets: tuple[str, ...] = (), dry_run: bool = True, devices: int = 0) -> Planner:
    """Look at a project and decide what has to run; nothing is written except caches.

    Raises:
        UserError: a model, a dataset, an image or a LoRA that the config names cannot be used.
    """
    with paused_collection():
        runs, compares = asked_runs(project, targets), compares_experiments(project, targets)
        stages = stages_of(runs, targets, of_checkpoints=are_of_checkpoints(targets), compares=compares)
        return Planner(ProjectPaths(project.root), stages, targets=targets, dry_run=dry_run, devices=devices)


def asked_runs(project: Project, targets: Collection[str]) -> list[Project]:
    """The base config, and the experiments that targets belong to.

    Raises:
        ConfigError: the settings of one of them are wrong.
    """
    names = project.experiments
    asked = {run_of_target(target, names) for target in targets}
    if TargetRule.EXPERIMENTS in targets or asks_for_comparison(targets):
        if not names:
            raise no_experiments()
        asked |= {*names}
        project.check_experiments()
    return [project.experiment(name) for name in ("", *names) if not name or name in asked]


def no_experiments() -> UserError:
    """Return the error for a target that needs experiments."""
    return UserError("the config has no experiments", hint="name some in `experiments:`, or set a `sweep:`")


def are_of_checkpoints(targets: Collection[str]) -> bool:
    """Whether a target is a sample of a single step, or the sheet of all; else their stages are not even planned."""
    return any("checkpoint" in target for target in targets)


def _asks_for_grid(run: Project, targets: Collection[str]) -> bool:
    """Whether the sheet of a run's checkpoints is a target."""
    paths = ProjectPaths(run=run.run)
    files = {str(paths.checkpoint_sheet), str(paths.checkpoint_film)}
    return bool(files & {*targets}) or (not run.run and Rule.CHECKPOINT_GRID in targets)


def compares_experiments(project: Project, targets: Collection[str]) -> bool:
    """Whether the experiments are compared: if all of them are asked for, or the comparison itself."""
    return is_compared(project.experiments) and (TargetRule.EXPERIMENTS in targets or asks_for_comparison(targets))


def stages_of(
    runs: Sequence[Project], targets: Collection[str] = (), *, of_checkpoints: bool = False, compares: bool = False
) -> list[Stage]:
    """Return the stages of several runs of a project, of which the first is the base config.

    Args:
        targets: if the sheet of the checkpoints is one, the report shows it.
        of_checkpoints: also the samples of single steps.
        compares: also the comparison of the others with one another.

    Raises:
        UserError: a model, a dataset, an image or a LoRA that the config names cannot be used.
    """
    base = runs[0]
    reader = MadeFromReader(base.paths.recorded_products)
    complete = CompleteEncodings(base.paths.complete_encodings)
    stages = list[Stage]()
    with remembered_checks(base) as passed:
        for run in runs:
            with said_of(run.run):
                refuse_folders(run.paths)
                passed.refuse(run, missing=False)
                builder, with_grid = StageBuilder(run, reader, complete), _asks_for_grid(run, targets)
                stages += builder.stages(of_checkpoints=of_checkpoints, with_grid=with_grid)
    former = former_stages(base.root, [run.run for run in runs], stages, reader) if base.experiments else ()
    stages = [*former, *stages]
    if compares:
        stages.append(comparison_stage(base, runs[1:], reader))
    reader.save()
    complete.save()
    base.save_caches()
    return stages


@contextmanager
def said_of(experiment: str) -> Iterator[None]:
    """Name the experiment in errors about it.

    Raises:
        UserError: one was raised inside.
    """
    try:
        yield
    except UserError as error:
        if not experiment or experiment in error.message:
            raise
        first, *lines = f"experiment {experiment}: {error.message}".split("\n")
        raise UserError(first, lines=lines, hint=error.hint) from error
