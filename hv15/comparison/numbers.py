"""The measured columns of a comparison, and how their numbers are written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from hv15.comparison.groups import Spread, TrainingGroup, spread
from hv15.comparison.trainings import ComparedTraining
from hv15.units import GIB

LOSS_DIGITS, COST_DIGITS = 5, 3
"""Most significant digits of a loss that is shown, and of a time or a size."""
PLUS_MINUS = "±"


@dataclass(frozen=True)
class Scale:
    """The unit in which a column is shown."""

    unit: str
    factor: float
    """Values are multiplied by it."""


PLAIN = Scale("", 1.0)
PERCENT = Scale("%", 100.0)


@dataclass(frozen=True)
class MeasuredColumn:
    """One measured number of each training."""

    key: str
    """Its name in a CSV file, with the unit of the value."""
    title: str
    value: Callable[[ComparedTraining], float | None]
    scales: tuple[Scale, ...] = (PLAIN,)
    """From the largest unit to the smallest: the first one of which all numbers are at least a few is used."""
    most_digits: int = LOSS_DIGITS
    is_whole: bool = False
    follows_settings: bool = False
    """Whether the settings alone decide the number, so that equal ones of all seeds are no finding."""

    def of_group(self, group: TrainingGroup) -> Spread | None:
        """Return mean and spread over the trainings of a group that count; None if nothing was measured."""
        return spread(self.value(each) for each in group.counted)

    def text(self, found: Spread | None, digits: int, scale: Scale) -> str:
        """Return the numbers of a group as `spread_text` does; what follows from the settings has no spread of 0."""
        if self.follows_settings and found is not None and not found.deviation:
            found = found._replace(deviation=None)
        return spread_text(found, digits, scale.factor)

    def scale(self, trainings: Iterable[ComparedTraining]) -> Scale:
        """Return the unit in which all of these are shown."""
        values = [abs(value) for each in trainings if (value := self.value(each))]
        fitting = (scale for scale in self.scales if values and min(values) * scale.factor >= _FEW)
        return next(fitting, self.scales[-1])


_FEW = 2.0
_TIMES = (Scale("h", 1 / 3600), Scale("min", 1 / 60), Scale("s", 1.0))
_SIZES = (Scale("GiB", 1 / GIB), Scale("MiB", 1 / 2**20), Scale("KiB", 1 / 1024))

VALIDATION_BEST = MeasuredColumn(
    "validation_best",
    "Best validation",
    lambda each: each.best.loss if each.best else None,
)
STEPS = MeasuredColumn("steps", "Steps", lambda each: each.steps or None, is_whole=True, follows_settings=True)
COLUMNS = (
    VALIDATION_BEST,
    MeasuredColumn(
        "validation_best_step", "At step", lambda each: each.best.step if each.best else None, is_whole=True
    ),
    MeasuredColumn("validation_last", "Last validation", lambda each: each.last.loss if each.last else None),
    MeasuredColumn("trained_last", "On trained clips", lambda each: each.last.trained_loss if each.last else None),
    MeasuredColumn("loss_last", "Loss", lambda each: each.loss_last),
    MeasuredColumn("samples_right", "Samples right", lambda each: each.samples_right, (PERCENT,), COST_DIGITS),
    STEPS,
    MeasuredColumn("train_seconds", "Time", lambda each: each.train_seconds or None, _TIMES, COST_DIGITS),
    MeasuredColumn("memory_peak_bytes", "Memory", lambda each: each.memory_peak, _SIZES, COST_DIGITS),
    MeasuredColumn("lora_bytes", "LoRA", lambda each: each.lora_bytes, _SIZES, COST_DIGITS, follows_settings=True),
)


def known_columns(trainings: Sequence[ComparedTraining]) -> list[MeasuredColumn]:
    """Return the columns that have a number."""
    return [column for column in COLUMNS if any(column.value(each) is not None for each in trainings)]


def decimals(column: MeasuredColumn, spreads: Iterable[Spread | None], factor: float = 1.0) -> int:
    """Return how many digits after the point the numbers of a column have: two of the smallest deviation.

    Never more significant ones of the largest number than the column has at most; without deviations, one less.

    Args:
        factor: the numbers are shown multiplied by it.
    """
    known = [each for each in spreads if each is not None]
    largest = max((abs(each.mean) * factor for each in known), default=0.0)
    before = math.floor(math.log10(largest)) + 1 if largest > 0 else 1
    most = 0 if column.is_whole else max(0, column.most_digits - before)
    deviations = [each.deviation * factor for each in known if each.deviation]
    wanted = 1 - math.floor(math.log10(min(deviations))) if deviations else most - 1
    return max(0, min(wanted, most))


def number_text(value: float | None, digits: int) -> str:
    """Return a number with so many digits after the point; "" if there is none."""
    return "" if value is None else f"{value:.{digits}f}"


def spread_text(found: Spread | None, digits: int, factor: float = 1.0) -> str:
    """Return `0.1234 ± 0.0012`; the mean alone of a single one, of which no spread is known; "" if there is none.

    Repetitions that agree have a deviation of 0, which is said: the mean alone would look like a single training.
    """
    if found is None:
        return ""
    mean = number_text(found.mean * factor, digits)
    if found.deviation is None:
        return mean
    return f"{mean} {PLUS_MINUS} {number_text(found.deviation * factor, digits)}"
