"""`hv15 status --experiment NAME`: how far one experiment is, and why it failed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from hv15.commands.options.runs import Status
from hv15.comparison.trainings import ComparedTraining, read_training
from hv15.config.load import ConfigSource
from hv15.records.json_values import JsonObject
from hv15.records.paths import ProjectPaths
from hv15.records.rules import Rule
from hv15.runs import lock
from hv15.runs.failures import has_failed
from hv15.runs.record import project_config
from hv15.runs.state import RunStatus
from hv15.terminal_text import json_text, one_line


def print_experiment(options: Status, found: RunStatus | None) -> None:
    """Print how far an experiment is.

    Args:
        found: the newest run; None if there is none.

    Raises:
        ConfigError: the config has no such experiment, and nothing is left of one.
    """
    from hv15.commands.runs import causes_of, print_causes

    config = project_config(options.project)
    paths = ProjectPaths(config.parent, options.experiment)
    source = ConfigSource(config)
    is_known = paths.run in source.experiments
    if not is_known and not paths.results.is_dir():
        source.experiment(paths.run)  # which says which there are
    training = read_training(paths.run, paths)
    state = _state(paths, training)
    if options.json:
        print(json_text(_as_json(paths, training, state)))
        return
    print(one_line(f"{paths.run}: {state}{'' if is_known else '; it is no longer in the config'}"))
    for line in _facts(training):
        print(f"  {line}")
    if found is not None:
        failed = [each for each in found.failed if each.job.experiment == paths.run and not each.stopped]
        names = {each.job.name for each in failed}
        print_causes(cause for cause in causes_of(config.parent, found) if cause[0] in names)
    words = ["hv15", "why", str(options.project), "--experiment", paths.run]
    if is_known:
        print(one_line(f"  `{shlex.join(words)}` says what is due"))


def _state(paths: ProjectPaths, training: ComparedTraining) -> str:
    """What it does, or how it ended, in words."""
    if lock.is_held(paths.training_lock):
        return "its training runs"
    if paths.lora.exists():
        return f"{ProjectPaths(run=paths.run).lora} is made"
    if has_failed(paths.log(Rule.TRAIN)):
        return "its training failed"
    if training.is_unfinished:
        return "its training was stopped, and goes on where it was saved"
    return "its training is finished, the rest is not made yet" if training.is_finished else "not made yet"


def _facts(training: ComparedTraining) -> Iterator[str]:
    if training.steps:
        of = f" of {training.total_steps}" if training.total_steps else ""
        loss = f", loss {training.loss_last:.4f}" if training.loss_last is not None else ""
        yield f"training: step {training.steps}{of}{loss}"
    if training.best is not None and training.last is not None:
        yield (
            f"validation: lowest loss {training.best.loss:.4f} after step {training.best.step}, "
            f"the last {training.last.loss:.4f} after step {training.last.step}"
        )


def _as_json(paths: ProjectPaths, training: ComparedTraining, state: str) -> JsonObject:
    best = training.best
    return {
        "project": str(paths.root),
        "experiment": paths.run,
        "state": state,
        "trains": lock.is_held(paths.training_lock),
        "made": paths.lora.exists(),
        "steps": training.steps,
        "total_steps": training.total_steps or None,
        "loss": training.loss_last,
        "validation_best": best.loss if best else None,
        "validation_best_step": best.step if best else None,
    }
