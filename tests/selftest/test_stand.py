"""What the checks share: one model of full size at a time, and a device that may fail."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from hv15.plan.cost import Cost
from hv15.plan.work import PRODUCTS, Work
from hv15.records.selftest import Measured
from hv15.selftest.checks import MachineCheck
from hv15.selftest.planned import PlannedCosts
from hv15.selftest.run import reports
from hv15.selftest.stand import Skipped, Stand
from hv15.selftest.steps import measured_step, planned_cost


def raises(error: Exception) -> Callable[[], Measured]:
    def run() -> Measured:
        raise error

    return run


def test_a_model_of_full_size_is_made_when_it_is_another_one(stand: Stand) -> None:
    made: list[str] = []

    def make(name: str) -> Callable[[], nn.Module]:
        return lambda: made.append(name) or nn.Linear(1, 1)  # type: ignore[func-returns-value]

    for name in ("a", "a", "b", "a"):
        stand.full_size(name, make(name))
    assert made == ["a", "b", "a"]


@pytest.mark.parametrize(("error", "again"), [(None, False), (Skipped("no"), False), (ValueError("half done"), True)])
def test_a_model_that_a_failed_check_has_used_is_made_again(stand: Stand, error: Exception | None, again: bool) -> None:
    first = stand.full_size("a", lambda: nn.Linear(1, 1))
    run = Measured if error is None else raises(error)
    list(reports(stand, [MachineCheck("numbers", "x", run)]))
    assert (stand.full_size("a", lambda: nn.Linear(1, 1)) is not first) == again


def test_when_the_device_has_failed_the_rest_is_left_out(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an illegal access to memory, all that a process does on a GPU fails, also freeing memory."""
    lost = RuntimeError("CUDA error: an illegal memory access was encountered")

    def fail(self: Stand) -> None:
        raise lost

    def run() -> Measured:
        monkeypatch.setattr(Stand, "release", fail)
        monkeypatch.setattr(Stand, "answers", lambda _: False)
        raise lost

    checks = [
        MachineCheck("numbers", "bad kernel", run),
        MachineCheck("numbers", "next", raises(AssertionError("it was run"))),
    ]
    *_, report = reports(stand, checks)
    assert [row.state for row in report.rows] == ["failed", "left out"]
    assert report.rows[1].message == "since 'bad kernel', nothing runs on the device in this process"
    assert report.finished


def test_a_device_answers(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stand.answers()
    monkeypatch.setattr(torch, "ones", lambda *_, **__: raises(RuntimeError("CUDA error"))())
    assert not stand.answers()


def test_a_step_that_may_wait_for_copies_says_nothing_of_the_products(stand: Stand) -> None:
    """A plan adds the copies to what the products take."""
    stand.sizes = replace(stand.sizes, name="full")
    stand.rates.products["float32"] = 1e9
    for copied, known in ((8, set()), (0, {"train"})):
        cost = Cost({}, {PRODUCTS: Work(1, 8, 1000)}, copied=copied)
        measured_step(stand, "train", torch.float32, cost, lambda: None)
        assert stand.rates.utilisation.keys() == known


def test_plans_are_computed_here_if_the_other_process_is_killed() -> None:
    class Killed(Future[int]):
        def result(self, timeout: float | None = None) -> int:
            raise BrokenProcessPool("a process in the process pool was terminated abruptly")

    work: Any = type("Work", (), {"plan": lambda _: 7})()
    plans = PlannedCosts()
    plans._found[work] = Killed()  # type: ignore[assignment]
    assert plans.of(work) == 7


def test_what_the_plan_says_does_not_fit_is_skipped(stand: Stand) -> None:
    plans: Any = SimpleNamespace(of=lambda work: SimpleNamespace(peak=stand.memory + work))
    stand.plans = plans
    assert planned_cost(stand, 0) is not None  # type: ignore[arg-type]
    with pytest.raises(Skipped, match=r"needs .* GiB, and the device has"):
        planned_cost(stand, 1)  # type: ignore[arg-type]
