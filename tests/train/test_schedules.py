"""Learning rates by hand."""

from __future__ import annotations

from typing import get_args

import pytest

from hv15.config.training.optimizer import LRScheduler, OptimizerSettings
from hv15.train.schedules import depends_on_length, lr_factor, warmup_steps


def table(schedule: str, total: int, warmup: int = 0) -> list[float]:
    return [round(lr_factor(step, total, schedule=schedule, warmup=warmup), 4) for step in range(total)]  # type: ignore[arg-type]


def test_tables() -> None:
    assert table("constant", 5, 2) == [0.5, 1.0, 1.0, 1.0, 1.0]
    assert table("linear", 6, 2) == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    assert table("linear", 4) == [1.0, 0.75, 0.5, 0.25]
    assert table("cosine", 4) == [1.0, 0.8536, 0.5, 0.1464]
    assert table("cosine", 8, 4) == [0.25, 0.5, 0.75, 1.0, 1.0, 0.8536, 0.5, 0.1464]


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 1, 7, 50])
def test_no_step_is_wasted_and_none_passes_the_peak(schedule: str, warmup: int) -> None:
    factors = table(schedule, 50, warmup)
    assert all(0 < factor <= 1 for factor in factors)
    assert max(factors) == 1.0
    assert factors[:warmup] == sorted(factors[:warmup])
    after = factors[warmup:]
    assert after == sorted(after, reverse=True)


def test_a_warm_up_below_1_is_a_share_of_all_steps() -> None:
    assert [warmup_steps(setting, 1600) for setting in (0, 0.05, 1, 100, 100.0)] == [0, 80, 1, 100, 100]


@pytest.mark.parametrize("schedule", get_args(LRScheduler))
@pytest.mark.parametrize("warmup", [0, 3, 0.25])
def test_a_rate_depends_on_the_length_if_that_changes_any(schedule: LRScheduler, warmup: float) -> None:
    options = OptimizerSettings(lr_scheduler=schedule, lr_warmup_steps=warmup)
    short, long = (
        [lr_factor(step, total, schedule=schedule, warmup=warmup_steps(warmup, total)) for step in range(8)]
        for total in (8, 80)
    )
    assert depends_on_length(options) == (short != long)
