"""Learning rates by hand, by transformers' schedules, and by the formula of the paper on REX."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from transformers import get_scheduler
from transformers.optimization import get_wsd_schedule

from hv15.config import TrainSettings
from hv15.config.training.schedule import LRScheduler, in_steps
from hv15.train.schedules import Schedule, depends_on_length
from tests.train import world

KINDS: tuple[LRScheduler, ...] = get_args(LRScheduler)


def table(kind: LRScheduler, total: int, warmup: int = 0, **options: Any) -> list[float]:
    schedule = Schedule(kind, total, warmup, **options)
    return [round(schedule.factor(step), 4) for step in range(total)]


def test_tables() -> None:
    assert table("constant", 5, 2) == [0.5, 1.0, 1.0, 1.0, 1.0]
    assert table("linear", 6, 2) == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    assert table("linear", 4) == [1.0, 0.75, 0.5, 0.25]
    assert table("cosine", 4) == [1.0, 0.8536, 0.5, 0.1464]
    assert table("cosine", 8, 4) == [0.25, 0.5, 0.75, 1.0, 1.0, 0.8536, 0.5, 0.1464]
    assert table("cosine_with_restarts", 8, cycles=2) == table("cosine", 4) * 2
    assert table("polynomial", 4, power=2.0) == [1.0, 0.5625, 0.25, 0.0625]
    assert table("inverse_sqrt", 5, timescale=1) == [1.0, 0.7071, 0.5774, 0.5, 0.4472]
    assert table("warmup_stable_decay", 8, 2, decay=4) == [0.5, 1.0, 1.0, 1.0, *table("cosine", 4)]
    assert table("rex", 4) == [1.0, 0.8571, 0.6667, 0.4]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("warmup", [0, 1, 7, 50])
def test_no_step_is_wasted_and_none_passes_the_peak(kind: LRScheduler, warmup: int) -> None:
    """REX is one of them: its warm-up, too, begins at the first part of the peak and ends at the peak."""
    factors = table(kind, 50, warmup, decay=20)
    assert all(0 < factor <= 1 for factor in factors)
    assert max(factors) == 1.0
    assert factors[:warmup] == [round((step + 1) / warmup, 4) for step in range(warmup)]
    after = factors[warmup:]
    assert after == sorted(after, reverse=True)


OF_TRANSFORMERS: dict[LRScheduler, tuple[dict[str, Any], dict[str, Any]]] = {
    "constant": ({}, {}),
    "linear": ({}, {}),
    "cosine": ({}, {}),
    "cosine_with_restarts": ({"cycles": 3}, {"num_cycles": 3}),
    "cosine_with_min_lr": ({"end": 0.2}, {"min_lr_rate": 0.2}),
    "polynomial": ({"power": 1.7, "end": 0.05}, {"power": 1.7, "lr_end": 0.05}),
    "inverse_sqrt": ({"timescale": 13}, {"timescale": 13}),
    "warmup_stable_decay": ({"decay": 30, "end": 0.1}, {"num_decay_steps": 30, "min_lr_ratio": 0.1}),
}
"""Our options and theirs."""
TOTAL = 120


@pytest.mark.parametrize("warmup", [0, 40])
@pytest.mark.parametrize("kind", OF_TRANSFORMERS)
def test_after_the_warm_up_they_are_those_of_transformers(kind: LRScheduler, warmup: int) -> None:
    """Theirs warm up from 0, and so reach the peak one step later: ours is theirs of the next step."""
    ours, theirs = OF_TRANSFORMERS[kind]
    name = "constant_with_warmup" if kind == "constant" else kind
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = (
        get_wsd_schedule(optimizer, warmup, num_training_steps=TOTAL, **theirs)
        if kind == "warmup_stable_decay"
        else get_scheduler(name, optimizer, warmup, TOTAL, scheduler_specific_kwargs=theirs)
    )
    expected = []
    for _ in range(TOTAL):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    schedule = Schedule(kind, TOTAL, warmup, **ours)
    found = [schedule.factor(step) for step in range(TOTAL)]
    assert found[warmup:] == pytest.approx(expected[warmup:], abs=1e-9)
    if kind != "warmup_stable_decay":  # theirs warms up from min_lr_ratio
        assert found[:warmup] == pytest.approx(expected[1 : warmup + 1], abs=1e-9)


NEEDED: dict[LRScheduler, dict[str, Any]] = {
    "cosine_with_restarts": {"lr_scheduler_num_cycles": 2},
    "cosine_with_min_lr": {"lr_scheduler_min_lr_ratio": 0.2},
    "polynomial": {"lr_scheduler_power": 1.7},
    "inverse_sqrt": {"lr_scheduler_timescale": 3},
    "warmup_stable_decay": {"lr_decay_steps": 2},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_has_the_rates_of_its_schedule(kind: LRScheduler, tmp_path: Path) -> None:
    options = {"lr_scheduler": kind, "lr_warmup_steps": 1, "max_train_steps": 5, **NEEDED.get(kind, {})}
    config = world.settings(**options, network_dim=1, include_patterns=["img_mlp"])
    world.run(tmp_path, config)
    schedule = Schedule.from_settings(config.train, 5)
    rates = [record["lr"] for record in world.metrics(tmp_path)]
    assert rates == pytest.approx([config.train.learning_rate * schedule.factor(step) for step in range(5)], rel=1e-9)
    assert (len(set(rates)) > 1) == (kind != "constant")


def test_rex_is_that_of_its_paper() -> None:
    """Algorithm 1 of Chen et al. 2021: lr * (1 - t/T) / (1/2 + 1/2 * (1 - t/T))."""
    schedule = Schedule("rex", 100)
    expected = [(1 - t / 100) / (1 / 2 + 1 / 2 * (1 - t / 100)) for t in range(100)]
    assert [schedule.factor(t) for t in range(100)] == pytest.approx(expected)
    assert Schedule("rex", 100, warmup=10).factor(0) == 0.1
    assert Schedule("rex", 100, end=0.3).factor(50) == pytest.approx(0.3 + 0.7 * expected[50])


@pytest.mark.parametrize("cycles", range(1, 60))
def test_no_restart_is_missed_by_rounding(cycles: int) -> None:
    schedule = Schedule("cosine_with_restarts", 60 * cycles + 7, 7, cycles=cycles)
    assert [schedule.factor(7 + 60 * number) for number in range(cycles)] == [1.0] * cycles


def test_a_decay_that_is_longer_than_what_is_left_begins_after_the_warm_up() -> None:
    """Where the length is known only when the clips are counted."""
    assert table("warmup_stable_decay", 8, 4, decay=100) == table("cosine", 8, 4)


def test_a_number_of_steps_below_1_is_a_share_of_all_steps() -> None:
    assert [in_steps(setting, 1600) for setting in (0, 0.05, 1, 100, 100.0)] == [0, 80, 1, 100, 100]


def test_they_are_made_from_the_settings() -> None:
    options = {"lr_scheduler": "warmup_stable_decay", "lr_warmup_steps": 0.1, "lr_decay_steps": 0.25}
    settings = TrainSettings.model_validate({**options, "learning_rate": 2e-4, "lr_scheduler_min_lr": 1e-5})
    expected = Schedule("warmup_stable_decay", 200, warmup=20, decay=50, end=0.05)
    assert Schedule.from_settings(settings, 200) == expected
    settings = TrainSettings(lr_scheduler="polynomial", lr_scheduler_power=2, lr_scheduler_min_lr_ratio=0.5)
    assert Schedule.from_settings(settings, 7) == Schedule("polynomial", 7, power=2, end=0.5)
    settings = TrainSettings(lr_scheduler="cosine_with_restarts", lr_scheduler_num_cycles=3)
    assert Schedule.from_settings(settings, 7) == Schedule("cosine_with_restarts", 7, cycles=3)
    settings = TrainSettings(lr_scheduler="inverse_sqrt", lr_scheduler_timescale=30)
    assert Schedule.from_settings(settings, 7) == Schedule("inverse_sqrt", 7, timescale=30)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("warmup", [0, 3, 0.25])
def test_a_rate_depends_on_the_length_if_that_changes_any(kind: LRScheduler, warmup: float) -> None:
    needed = {"cosine_with_min_lr": {"lr_scheduler_min_lr_ratio": 0.1}, "warmup_stable_decay": {"lr_decay_steps": 2}}
    options = TrainSettings.model_validate({"lr_scheduler": kind, "lr_warmup_steps": warmup, **needed.get(kind, {})})
    short, long = ([Schedule.from_settings(options, total).factor(step) for step in range(8)] for total in (8, 80))
    assert depends_on_length(options) == (short != long)
