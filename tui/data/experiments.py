"""The experiments of a project: how far each is, in what it differs, and which one is the best so far."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from hv15.comparison.groups import Spread, TrainingComparison
from hv15.comparison.settings import in_words, recorded_settings
from hv15.comparison.trainings import ComparedTraining, comparable_validations
from hv15.config.load import ConfigSource
from hv15.errors import UserError
from hv15.records.found_runs import trained_experiments
from hv15.records.json_values import JsonObject, RecordError
from hv15.records.metrics import ValidationRecord
from hv15.records.paths import ProjectPaths
from hv15.records.rules import Rule, rule_words
from hv15.records.stage_names import run_of
from hv15.records.training import RECORD, TrainingRecord
from hv15.runs import lock
from hv15.runs.failures import has_failed
from hv15.stamp import Stamp, stamp
from hv15.terminal_text import one_line
from tui.data.jobs import Job, JobState
from tui.data.metrics import MetricsReader

REMOVED = "no longer in the config"
READ_S = 0.05
"""How long the metrics of one experiment are read at a time."""


class ExperimentState(StrEnum):
    """What an experiment does, or how it ended."""

    NEW = "not begun"
    WAITING = "waiting"
    """A run that is alive will make it."""
    RUNNING = "running"
    DONE = "done"
    STALE = "stale"
    """It is done, but its config or its clips have changed since."""
    CUT = "cut short"
    FAILED = "failed"


@dataclass(frozen=True)
class ExperimentRow:
    """One experiment."""

    name: str
    state: ExperimentState
    step: int
    total: int
    """0 when it is not known."""
    eta_s: float | None
    """Seconds that its training has left, while it trains."""
    best: ValidationRecord | None
    """Its lowest validation loss."""
    last: ValidationRecord | None
    settings: str
    """What it changes in the config, in words."""
    metrics: Path
    log: Path
    """Of its training."""
    doing: str = ""
    """What its job does, in words, while one runs; or which one failed, and why."""
    is_best: bool = False
    """Whether its lowest validation loss is the lowest of all, if they can be compared: of the finished ones, or while
    none is finished, of all so far."""
    group: str = ""
    """The settings that it shares with experiments of other seeds, in words."""
    of_group: Spread | None = None
    """Mean and spread of the lowest validation losses over these seeds."""


@dataclass(frozen=True)
class ExperimentsView:
    """All experiments, in the order of the config."""

    rows: tuple[ExperimentRow, ...] = ()
    is_comparable: bool = True
    """Whether their validations were measured at the same noise levels, on the same clips."""
    error: str = ""
    """Why the config cannot be read; the rows are then those that it had."""

    def count(self, state: ExperimentState) -> int:
        """Return how many are in a state."""
        return sum(row.state is state for row in self.rows)


class ExperimentsReader:
    """Reads the experiments of one project; what has not changed is not read again.

    Args:
        config: the project's config file.
        reader: returns the reader of a metrics file with a label.
    """

    def __init__(self, config: Path, reader: Callable[[Path, str], MetricsReader]) -> None:
        self._config, self._root, self._reader = config, config.parent, reader
        self._read: Stamp | None = None
        self._values: dict[str, JsonObject] = {}
        """Experiment -> what it changes, by dotted name."""
        self._error = ""
        self._recorded: dict[Path, tuple[Stamp | None, JsonObject]] = {}

    def read(self, jobs: Sequence[Job], *, alive: bool, due: Collection[str]) -> ExperimentsView:
        """Return the experiments as they are now.

        Args:
            jobs: of the newest run.
            alive: whether that goes on.
            due: the experiments of which something would be made again.
        """
        self._read_config()
        by_name: dict[str, list[Job]] = {}
        for job in jobs:
            by_name.setdefault(job.experiment, []).append(job)
        places = {name: ProjectPaths(self._root, name) for name in self._values}
        places |= {each.run: each for each in trained_experiments(self._root) if each.run not in places}
        rows, trainings = list[ExperimentRow](), list[ComparedTraining]()
        for name, paths in places.items():
            row, validations = self._row(name, paths, by_name.get(name, ()), alive=alive, is_due=name in due)
            rows.append(row)
            known = self._settings_of(paths)
            trainings.append(
                ComparedTraining(name, known, steps=row.step, total_steps=row.total, validations=validations)
            )
        compared = TrainingComparison(tuple(trainings))
        return ExperimentsView(tuple(_compared(rows, compared)), compared.is_comparable, self._error)

    def _read_config(self) -> None:
        now = stamp(self._config)
        if now == self._read:
            return
        self._read = now
        try:
            found = ConfigSource(self._config).experiments
        except UserError as error:
            self._error = error.message
            return
        self._values, self._error = {name: dict(each.values) for name, each in found.items()}, ""

    def _row(
        self, name: str, paths: ProjectPaths, jobs: Sequence[Job], *, alive: bool, is_due: bool
    ) -> tuple[ExperimentRow, tuple[ValidationRecord, ...]]:
        reader = self._reader(paths.metrics, name)
        reader.refresh(READ_S)
        status = reader.status()
        told = [each for each in reader.told() if isinstance(each, ValidationRecord)]
        validations = comparable_validations(told)
        trains = lock.is_held(paths.training_lock)
        states = {job.state for job in jobs}
        doing = next((rule_words(job.rule) for job in jobs if job.state is JobState.RUNNING), "")
        if trains or JobState.RUNNING in states:
            state = ExperimentState.RUNNING
        elif JobState.FAILED in states:
            state = ExperimentState.FAILED
            doing = next(_failure(job) for job in jobs if job.state is JobState.FAILED)
        elif alive and JobState.WAITING in states:
            state = ExperimentState.WAITING
        elif paths.lora.exists():
            state = ExperimentState.STALE if is_due else ExperimentState.DONE
        elif has_failed(paths.log(Rule.TRAIN)):
            state = ExperimentState.FAILED
        else:
            state = ExperimentState.CUT if status.step else ExperimentState.NEW
        known = self._values.get(name)
        row = ExperimentRow(
            name=name,
            state=state,
            step=status.step,
            total=status.total,
            eta_s=status.eta_s if trains else None,
            best=min(validations, key=lambda each: each.loss or 0.0, default=None),
            last=validations[-1] if validations else None,
            settings=REMOVED if known is None else in_words(known),
            metrics=paths.metrics,
            log=paths.log(Rule.TRAIN),
            doing=doing,
        )
        return row, validations

    def _settings_of(self, paths: ProjectPaths) -> JsonObject:
        """What the training of an experiment has recorded; empty if there is none."""
        file = paths.training / RECORD
        now = stamp(file)
        known = self._recorded.get(file)
        if known is None or known[0] != now:
            try:
                found = recorded_settings(TrainingRecord.load(paths.training))
            except RecordError:
                found = {}
            known = self._recorded[file] = (now, found)
        return known[1]


def _compared(rows: Sequence[ExperimentRow], compared: TrainingComparison) -> list[ExperimentRow]:
    """Add what the comparison of all shows."""
    groups = {each.name: group for group in compared.groups for each in group.trainings}
    best = compared.best_training
    return [
        replace(
            row,
            is_best=best is not None and best.name == row.name,
            group=groups[row.name].label if groups[row.name].seeds > 1 else "",
            of_group=groups[row.name].validation if groups[row.name].seeds > 1 else None,
        )
        for row in rows
    ]


def experiments_of(stages: Iterable[str]) -> frozenset[str]:
    """Return the experiments that stages belong to, given the stages' names."""
    return frozenset(run for name in stages if (run := run_of(name)))


def best_first(rows: Sequence[ExperimentRow]) -> list[ExperimentRow]:
    """Return rows with the lowest validation losses first, those without one last."""
    return sorted(rows, key=lambda row: (row.best is None, row.best.loss or 0.0 if row.best else 0.0))


def to_overlay(rows: Sequence[ExperimentRow], most: int) -> Mapping[str, Path]:
    """Return the metrics files of the experiments that have something to draw, by name: the best ones if too many."""
    drawn = [row for row in rows if row.step]
    if len(drawn) > most:
        chosen = best_first(drawn)[:most]
        drawn = [row for row in drawn if row in chosen]
    return {row.name: row.metrics for row in drawn}


def _failure(job: Job) -> str:
    """Which job failed, and in one line why."""
    why = "" if job.failure is None else next(iter(job.failure.cause.splitlines()), "")
    return one_line(": ".join(filter(None, (rule_words(job.rule), why))))
