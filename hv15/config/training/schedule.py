"""The settings of `train:` for the course of the learning rate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, field_validator

from hv15.config.section import PAST, Conflict, Few, Many, demands, only_with
from hv15.config.training.optimizer import OptimizerSettings

LRScheduler = Literal[
    "constant",
    "cosine",
    "linear",
    "cosine_with_restarts",
    "cosine_with_min_lr",
    "polynomial",
    "inverse_sqrt",
    "warmup_stable_decay",
    "rex",
]
_ENDS_ABOVE_0 = PAST | only_with(lr_scheduler=("cosine_with_min_lr", "polynomial", "warmup_stable_decay", "rex"))
Ratio = Annotated[float, Field(ge=0.0, le=1.0)]


# It inherits from the optimizer's settings because some optimizers need no schedule.
class ScheduleSettings(OptimizerSettings):
    """The learning rate from step to step."""

    lr_scheduler: LRScheduler = Field("constant", json_schema_extra=PAST)
    """The learning rate after the warm-up. `constant`. `cosine`, `linear`: falls to 0 along a cosine or a line.
    `cosine_with_restarts`: several cosines, each from the peak to 0. `cosine_with_min_lr`: a cosine that ends above 0.
    `polynomial`: a power of the part that is left. `inverse_sqrt`: falls as 1 / sqrt(step), without an end.
    `warmup_stable_decay`: constant, and a cosine in the last lr_decay_steps. `rex`: stays high for long, then falls
    fast."""

    lr_warmup_steps: int | float = Field(0, json_schema_extra=PAST)
    """Number of steps in which the learning rate rises from 0; a number below 1 is a fraction of the whole training
    (0.05 = 5 %)."""

    lr_scheduler_num_cycles: Few = Field(1, json_schema_extra=PAST | only_with(lr_scheduler=("cosine_with_restarts",)))
    """For `cosine_with_restarts`: the number of cosines."""

    lr_scheduler_power: PositiveFloat = Field(1.0, json_schema_extra=PAST | only_with(lr_scheduler=("polynomial",)))
    """For `polynomial`: the power. 1 is a line, 2 falls fast at first."""

    lr_scheduler_min_lr_ratio: Ratio | None = Field(None, json_schema_extra=_ENDS_ABOVE_0)
    """For `cosine_with_min_lr`, `polynomial`, `warmup_stable_decay` and `rex`: the learning rate at the end, as a
    fraction of the peak."""

    lr_scheduler_min_lr: NonNegativeFloat | None = Field(None, json_schema_extra=_ENDS_ABOVE_0)
    """The same as a learning rate, instead of lr_scheduler_min_lr_ratio."""

    lr_decay_steps: int | float | None = Field(
        None, json_schema_extra=PAST | only_with(lr_scheduler=("warmup_stable_decay",))
    )
    """For `warmup_stable_decay`: the number of steps at the end in which the learning rate falls; a number below 1 is a
    fraction of the whole training."""

    lr_scheduler_timescale: Many | None = Field(
        None, json_schema_extra=PAST | only_with(lr_scheduler=("inverse_sqrt",))
    )
    """For `inverse_sqrt`: the rate is the peak / sqrt(1 + (steps after the warm-up) / this number). If not set, as long
    as the warm-up, or 10000 without one."""

    @field_validator("lr_scheduler", mode="before")
    @classmethod
    def _warm_up_is_a_setting(cls, value: object) -> object:
        if value == "constant_with_warmup":
            raise ValueError(f"found '{value}': use constant, and set lr_warmup_steps")
        return value

    @field_validator("lr_warmup_steps", "lr_decay_steps")
    @classmethod
    def _steps_or_ratio(cls, value: int | float | None) -> int | float | None:
        if value is None:
            return None
        if value < 0 or (value >= 1 and value != int(value)):
            raise ValueError(f"found {value}, expected a whole number of steps, or a fraction of the training below 1")
        return int(value) if value == int(value) else value

    @property
    def end_ratio(self) -> float:
        """The learning rate at the end as a fraction of the peak, for schedules that may end above 0."""
        if self.lr_scheduler_min_lr is not None:
            return self.lr_scheduler_min_lr / self.learning_rate if self.learning_rate else 0.0
        return self.lr_scheduler_min_lr_ratio or 0.0

    def conflicts(self) -> Iterator[Conflict]:
        yield from super().conflicts()
        name = self.lr_scheduler
        for setting in _OPTIONS:
            (demand,) = demands(type(self), setting)
            choices = demand["lr_scheduler"]
            if getattr(self, setting) != type(self).model_fields[setting].default and name not in choices:
                yield (setting,), f"has no effect with lr_scheduler {name}, only with {', '.join(map(str, choices))}"
        if self.lr_scheduler_min_lr is not None and self.lr_scheduler_min_lr_ratio is not None:
            yield ("lr_scheduler_min_lr",), "lr_scheduler_min_lr_ratio is also set: keep one of them"
        elif (
            name == "cosine_with_min_lr" and self.lr_scheduler_min_lr is None and self.lr_scheduler_min_lr_ratio is None
        ):
            yield ("lr_scheduler_min_lr_ratio",), f"is required with lr_scheduler {name} (or lr_scheduler_min_lr)"
        if self.lr_scheduler_min_lr is not None and self.lr_scheduler_min_lr > self.learning_rate:
            text = f"found {self.lr_scheduler_min_lr:g}, expected at most learning_rate ({self.learning_rate:g})"
            yield ("lr_scheduler_min_lr",), text
        if name == "warmup_stable_decay" and not self.lr_decay_steps:
            yield ("lr_decay_steps",), f"is required with lr_scheduler {name}"
        if self.averages_weights and name != "constant":
            text = f"found {name}, but {self.optimizer_type} replaces the schedule by an average: use constant"
            yield ("lr_scheduler",), text


def in_steps(setting: float, total_steps: int) -> int:
    """Return `lr_warmup_steps` or `lr_decay_steps` in steps: a value below 1 is a part of all steps, rounded down."""
    return int(setting * total_steps) if setting < 1 else int(setting)


_OPTIONS = (
    "lr_scheduler_num_cycles",
    "lr_scheduler_power",
    "lr_scheduler_min_lr_ratio",
    "lr_scheduler_min_lr",
    "lr_decay_steps",
    "lr_scheduler_timescale",
)
"""Settings that only some schedules read."""
