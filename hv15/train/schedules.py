"""Learning rates as pure functions of the step, so that a resumed run needs no saved schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hv15.config.training.schedule import LRScheduler, ScheduleSettings, in_steps

_TIMESCALE = 10_000
"""Of `inverse_sqrt` without a warm-up, as in transformers."""


@dataclass(frozen=True)
class Schedule:
    """The course of the learning rate, as a factor on its peak.

    Warm-up rises linearly from 1/warmup at the first step, so that no step has a rate of 0, to 1 at step warmup-1.
    (transformers' schedules begin at 0 and reach 1 one step later.) What follows begins at 1, and equals transformers'
    schedule of the same name. What falls to its end would reach it at `total_steps`, one past the last step.
    """

    kind: LRScheduler
    total_steps: int
    warmup: int = 0
    """Steps of the warm-up."""
    cycles: int = 1
    """Of `cosine_with_restarts`."""
    power: float = 1.0
    """Of `polynomial`."""
    end: float = 0.0
    """The factor at the end, for `cosine_with_min_lr`, `polynomial`, `warmup_stable_decay` and `rex`."""
    decay: int = 0
    """Steps at the end in which `warmup_stable_decay` falls."""
    timescale: int | None = None
    """Of `inverse_sqrt`, in steps."""

    @classmethod
    def from_settings(cls, options: ScheduleSettings, total_steps: int) -> Schedule:
        """Make it from `train:`."""
        return cls(
            kind=options.lr_scheduler,
            total_steps=total_steps,
            warmup=in_steps(options.lr_warmup_steps, total_steps),
            cycles=options.lr_scheduler_num_cycles,
            power=options.lr_scheduler_power,
            end=options.end_ratio,
            decay=in_steps(options.lr_decay_steps or 0, total_steps),
            timescale=options.lr_scheduler_timescale,
        )

    def factor(self, step: int) -> float:
        """Return the factor for the step with this index (0 is the first)."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        if self.kind == "constant":
            return 1.0
        if self.kind == "inverse_sqrt":
            timescale = self.timescale or self.warmup or _TIMESCALE
            return 1 / math.sqrt(1 + (step - self.warmup) / timescale)
        begin = self.warmup
        if self.kind == "warmup_stable_decay":
            begin = max(begin, self.total_steps - self.decay)
            if step < begin:
                return 1.0
        return self._falling(self.total_steps - step, max(1, self.total_steps - begin))

    def _falling(self, steps_left: int, steps: int) -> float:
        """The factor in the part of the training, of so many steps, in which the rate falls."""
        left = steps_left / steps
        match self.kind:
            case "linear":
                return left
            case "cosine":
                return _cosine(left)
            case "cosine_with_restarts":
                return _cosine((steps_left * self.cycles % steps or steps) / steps)  # in integers: no restart is missed
            case "polynomial":
                return self._above_end(left**self.power)
            case "rex":  # Chen et al. 2021, "REX: Revisiting Budgeted Training with an Improved Schedule"
                return self._above_end(left / (0.5 + 0.5 * left))
            case _:  # cosine_with_min_lr, warmup_stable_decay
                return self._above_end(_cosine(left))

    def _above_end(self, factor: float) -> float:
        return self.end + (1 - self.end) * factor


def _cosine(left: float) -> float:
    return 0.5 * (1 - math.cos(math.pi * left))


def depends_on_length(options: ScheduleSettings) -> bool:
    """Whether the rate of any step depends on the length of the training: then a longer one is another training."""
    return options.lr_scheduler not in ("constant", "inverse_sqrt") or 0 < options.lr_warmup_steps < 1
