"""What is known of one training, from the files that it has written."""

from __future__ import annotations

import contextlib
import math
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from hv15.comparison.settings import SEED, recorded_settings
from hv15.digest import digest
from hv15.project.metadata import product_made_from
from hv15.records.json_values import JsonObject, RecordError, parse_object, text_of
from hv15.records.metrics import EndRecord, StartRecord, StepRecord, ValidationRecord, read_records
from hv15.records.paths import ProjectPaths
from hv15.records.training import TrainingRecord
from hv15.train.curves import Line, thinned
from hv15.train.smoothed import SmoothedLoss

MOST_POINTS = 500
"""Of the curve of a training's loss."""
NO_LINE = Line((), ())


@dataclass(frozen=True, eq=False)
class ComparedTraining:
    """One training, with its settings and what was measured."""

    name: str
    settings: JsonObject
    """By dotted name, the seed included; empty if they are not known."""
    steps: int = 0
    """Finished ones; 0 if it has not begun."""
    total_steps: int = 0
    """0 if that is not known."""
    loss: Line = NO_LINE
    """The running mean over the steps, thinned."""
    loss_last: float | None = None
    """The running mean after the last step."""
    validations: tuple[ValidationRecord, ...] = ()
    """Those whose loss is a number, by step. If the noise levels changed meanwhile, those at the last ones."""
    train_seconds: float = 0.0
    """Of all steps, without loading, validations and previews."""
    memory_peak: float | None = None
    """Bytes: on a GPU as torch counts them, else those of the process."""
    lora_bytes: int | None = None
    """The size of the LoRA's file."""
    device: str = ""
    samples_right: float | None = None
    """The share of its samples that show what their prompts say, where that can be measured: in the demo's world."""

    @property
    def seed(self) -> int | None:
        """Of the training; None if that is not known."""
        seed = self.settings.get(SEED)
        return seed if isinstance(seed, int) else None

    @property
    def is_finished(self) -> bool:
        """Whether it has all of its steps."""
        return 0 < self.steps == self.total_steps

    @property
    def is_unfinished(self) -> bool:
        """Whether it has begun and has steps left."""
        return 0 < self.steps < self.total_steps

    @property
    def best(self) -> ValidationRecord | None:
        """The validation with the lowest loss, the first of several."""
        return min(self.validations, key=lambda each: each.loss or 0.0, default=None)

    @property
    def last(self) -> ValidationRecord | None:
        """The last validation."""
        return self.validations[-1] if self.validations else None


@dataclass
class _Measured:
    """The content of a metrics file, taken record by record."""

    at: array[float] = field(default_factory=lambda: array("d"))
    losses: array[float] = field(default_factory=lambda: array("d"))
    smooth: SmoothedLoss = field(default_factory=SmoothedLoss)
    validations: list[ValidationRecord] = field(default_factory=list)
    steps: int = 0
    total_steps: int = 0
    seconds: float = 0.0
    memory: float = 0.0

    def take_step(self, record: StepRecord) -> None:
        self.steps = max(self.steps, record.step)
        if record.loss is not None and math.isfinite(record.loss):
            self.at.append(record.step)
            self.losses.append(self.smooth.update(record.loss))
        self.seconds += record.step_s if math.isfinite(record.step_s) else 0.0
        if math.isfinite(record.memory_peak):
            self.memory = max(self.memory, record.memory_peak)


def read_trainings(
    places: Mapping[str, ProjectPaths], more: Mapping[str, JsonObject] | None = None
) -> list[ComparedTraining]:
    """Return what is known of several trainings.

    An experiment whose LoRA is a copy, because another one trained the same, has the measurements of that one.

    Args:
        places: by name.
        more: settings of samples and the like, which no record of a training tells, by name and dotted name.
    """
    measured = {name: paths for name, paths in places.items() if paths.metrics.is_file()}
    by_spec = {spec: paths for paths in reversed(measured.values()) if (spec := _made_from(paths))}
    found = []
    for name, paths in places.items():
        origin = measured.get(name) or by_spec.get(_made_from(paths)) or paths
        training = read_training(name, origin)
        found.append(replace(training, settings={**training.settings, **(more or {}).get(name, {})}))
    return found


def _made_from(paths: ProjectPaths) -> str:
    """What stands for everything that a LoRA was made from; "" if there is none, or it does not say it."""
    made_from = product_made_from(paths.trained) or product_made_from(paths.lora)
    return "" if made_from is None else digest(made_from)


def read_training(name: str, paths: ProjectPaths) -> ComparedTraining:
    """Return what is known of the training of a project or an experiment; of one that has not begun, only its name."""
    settings: JsonObject = {}
    with contextlib.suppress(RecordError):
        settings = recorded_settings(TrainingRecord.load(paths.training))
    found = _Measured()
    with contextlib.suppress(OSError):
        for record in read_records(paths.metrics):
            if isinstance(record, StepRecord):
                found.take_step(record)
            elif isinstance(record, ValidationRecord):
                found.validations.append(record)
            elif isinstance(record, StartRecord | EndRecord):
                found.total_steps = record.total_steps
    return ComparedTraining(
        name=name,
        settings=settings,
        steps=found.steps,
        total_steps=found.total_steps,
        loss=thinned(Line(found.at, found.losses), MOST_POINTS),
        loss_last=found.losses[-1] if found.losses else None,
        validations=comparable_validations(found.validations),
        train_seconds=found.seconds,
        memory_peak=found.memory or None,
        lora_bytes=_size(paths.trained) or _size(paths.lora),
        device=_device(paths.summary),
    )


def comparable_validations(records: Iterable[ValidationRecord]) -> tuple[ValidationRecord, ...]:
    """Return the validations of a training whose loss is a number, by step: those at the noise levels of the last."""
    found = {each.step: each for each in records if each.loss is not None and math.isfinite(each.loss)}
    ordered = [found[step] for step in sorted(found)]
    return tuple(each for each in ordered if each.sigmas == ordered[-1].sigmas)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _device(summary: Path) -> str:
    """What the training says that it ran on; "" if it does not."""
    try:
        return text_of(parse_object(summary.read_bytes()), "device")
    except (OSError, RecordError):
        return ""
