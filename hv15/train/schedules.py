"""Learning rates as pure functions of the step, so that a resumed run needs no saved schedule."""

from __future__ import annotations

import math

from hv15.config.training.optimizer import LRScheduler, OptimizerSettings


def warmup_steps(setting: float, total_steps: int) -> int:
    """Return `lr_warmup_steps` in steps: a value below 1 is a fraction of all steps, rounded down."""
    return int(setting * total_steps) if setting < 1 else int(setting)


def lr_factor(step: int, total_steps: int, *, schedule: LRScheduler, warmup: int) -> float:
    """Return the factor on the peak rate for the step with this index (0 is the first).

    Warm-up rises linearly from 1/warmup at the first step, so that no step has a rate of 0, to 1 at step warmup-1.
    `cosine` and `linear` then fall from 1 towards 0, which they would reach at `total_steps`, one past the last step.
    """
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    left = (total_steps - step) / max(1, total_steps - warmup)  # 1 at the end of warm-up, 0 at the end
    return left if schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))


def depends_on_length(options: OptimizerSettings) -> bool:
    """Whether the rate of any step depends on the length of the training: then a longer one is another training."""
    return options.lr_scheduler != "constant" or 0 < options.lr_warmup_steps < 1
