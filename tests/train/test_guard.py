"""The optimizer step that a device decides about, run on the CPU, against the optimizer that is simply not asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import nn

from hv15.train.guard import Guard
from hv15.train.optimizers import make_optimizer

Make = Callable[[Sequence[dict[str, object]]], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "AdamW": lambda groups: make_optimizer("AdamW", groups, {"weight_decay": 0.1}),
    "Muon": lambda groups: make_optimizer("Muon", groups),
    "Adafactor": lambda groups: make_optimizer("Adafactor", groups),
    "momentum": lambda groups: torch.optim.SGD(groups, momentum=0.9),
    "plain": lambda groups: torch.optim.SGD(groups),
}
COUNT = 33


def made(name: str, *, at_once: bool) -> Guard:
    """An optimizer of some matrices, in a group of many and in one of few."""
    draws = torch.Generator().manual_seed(0)
    matrices = [nn.Parameter(torch.randn(3, 2 + number % 4, generator=draws)) for number in range(COUNT)]
    groups: list[dict[str, object]] = [{"params": matrices[:30], "lr": 0.1}, {"params": matrices[30:], "lr": 0.2}]
    return Guard(OPTIMIZERS[name](groups), at_once)


def step(guard: Guard, number: int, *, good: bool = True) -> None:
    """Do a step with the gradients of its number."""
    draws = torch.Generator().manual_seed(number)
    for each in guard.parameters:
        each.grad = torch.randn(each.shape, generator=draws) * (1 if good else math.nan)
    guard.step(torch.tensor(good))
    guard.optimizer.zero_grad()


def content(guard: Guard, *, counts: bool = True) -> list[torch.Tensor]:
    """Copies of the matrices and of the optimizer's tensors; without those that only count steps if asked."""
    states = [state.items() for state in guard.optimizer.state.values()]
    kept = [value for state in states for name, value in state if counts or name != "step"]
    return [each.detach().clone() for each in (*guard.parameters, *kept) if isinstance(each, torch.Tensor)]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_good_steps_are_those_of_the_optimizer_to_the_bit(name: str) -> None:
    plain, guarded = made(name, at_once=True), made(name, at_once=False)
    for number in range(3):
        step(plain, number)
        step(guarded, number)
    assert same(content(plain), content(guarded))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_bad_step_changes_neither_the_matrices_nor_the_optimizers_tensors(name: str) -> None:
    guard = made(name, at_once=False)
    for number in range(2):
        step(guard, number)
    before = content(guard, counts=False)
    step(guard, 2, good=False)
    assert same(content(guard, counts=False), before)
    step(guard, 3)
    assert not same(content(guard, counts=False), before)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_training_may_begin_with_a_bad_step(name: str) -> None:
    """There is no former content of the optimizer's tensors yet."""
    guard, start = made(name, at_once=False), made(name, at_once=False)
    step(guard, 0, good=False)
    assert same(content(guard)[:COUNT], content(start)[:COUNT])
    assert all(tensor.isfinite().all() for tensor in content(guard))


@pytest.mark.parametrize("name", ["Muon", "momentum"])
def test_where_nothing_is_counted_a_skipped_step_is_one_that_never_was(name: str) -> None:
    skipping, without = made(name, at_once=False), made(name, at_once=False)
    for number in range(4):
        step(skipping, number, good=number != 2)
        if number != 2:
            step(without, number)
    assert same(content(skipping), content(without))


def test_where_the_numbers_are_there_the_optimizer_is_not_asked() -> None:
    guard = made("AdamW", at_once=True)
    step(guard, 0)
    before = content(guard)
    step(guard, 1, good=False)
    assert same(content(guard), before)


def test_the_host_looks_where_it_need_not_wait_or_must() -> None:
    matrices, gpu, cpu = [nn.Parameter(torch.zeros(2, 2))], torch.device("cuda"), torch.device("cpu")
    assert Guard.on(cpu, torch.optim.AdamW(matrices)).at_once
    assert Guard.on(gpu, torch.optim.SGD(matrices)).at_once


@pytest.mark.parametrize("name", ["AdamW", "Muon", "Adafactor"])
def test_the_device_decides_for_optimizers_by_their_names(name: str) -> None:
    matrices = [{"params": [nn.Parameter(torch.zeros(2, 2))], "lr": 0.1}]
    assert not Guard.on(torch.device("cuda"), make_optimizer(name, matrices)).at_once
