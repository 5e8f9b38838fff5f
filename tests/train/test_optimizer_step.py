"""One optimizer step by itself: no loop, no accelerator, no files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hv15.cache.batches import BatchStream
from hv15.lora import LoRANetwork
from hv15.models import DiT
from hv15.train.examples import Example
from hv15.train.gradient_sum import GradientSum
from hv15.train.losses import LossFunction, mean_square
from hv15.train.metrics import SIGMA_BINS
from hv15.train.optimizer_step import OptimizerStep, StepNumbers
from hv15.train.run import make_reader
from tests.train.world import settings, tiny_dit, tiny_stores

pytestmark = pytest.mark.numeric


@pytest.fixture
def examples(tmp_path: Path) -> list[tuple[int, Example]]:
    """Three micro-batches of two samples."""
    items, stores = tiny_stores(tmp_path)
    stream, reader = BatchStream(items, seed=1), make_reader(settings(), stores)
    return [(index, reader(stream[index])) for index in range(3)]


def plain_step(dit: DiT | None = None, **options: object) -> OptimizerStep:
    """Gradient descent of rate 1 on a LoRA that already adds something."""
    dit = dit or tiny_dit()
    network = LoRANetwork(dit, rank=2, alpha=2, seed=0)
    with torch.no_grad():
        for number, (name, parameter) in enumerate(sorted(network.named_parameters())):
            if "lora_up" in name:
                parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(number))
    sgd = torch.optim.SGD([{"params": list(network.parameters()), "lr": 1.0, "initial_lr": 1.0}])
    loss = LossFunction(settings().train)
    return OptimizerStep(dit, network, sgd, torch.device("cpu"), seed=0, max_grad_norm=0.0, loss=loss, **options)  # type: ignore[arg-type]


def moved(step: OptimizerStep, examples: list[tuple[int, Example]], lr_factor: float = 1.0) -> Tensor:
    """Do a step; how far it moved the parameters, as one vector."""
    before = torch.cat([parameter.detach().flatten().clone() for parameter in step.parameters])
    step.run(examples, micro_batches=len(examples), samples=2 * len(examples), lr_factor=lr_factor)
    return before - torch.cat([parameter.detach().flatten() for parameter in step.parameters])


def numbers(step: OptimizerStep, examples: list[tuple[int, Example]]) -> StepNumbers:
    """Do a step that moves nothing."""
    queued = step.run(examples, micro_batches=len(examples), samples=6, lr_factor=0.0)
    return StepNumbers.from_list(queued.tensor.tolist())


def test_the_numbers_come_in_one_piece(examples: list[tuple[int, Example]]) -> None:
    step = plain_step()
    losses = torch.cat([mean_square(example.error(step.dit)) for _, example in examples]).tolist()
    queued = step.run(iter(examples), micro_batches=3, samples=6, lr_factor=0.25, flags=lambda: (True, False))
    numbers = StepNumbers.from_list(queued.tensor.tolist())
    assert queued.lr == 0.25
    assert numbers.flags == [True, False]
    assert (len(numbers.loss_sums), sum(numbers.sample_counts)) == (SIGMA_BINS, 6)
    assert sum(numbers.loss_sums) == pytest.approx(sum(losses), rel=1e-5)
    assert numbers.grad_norm > 0
    assert all(parameter.grad is None for parameter in step.parameters)


def test_weights_scale_the_gradients_and_not_what_is_recorded(examples: list[tuple[int, Example]]) -> None:
    doubled = [(index, replace(example, weight=2 * example.weight)) for index, example in examples]
    assert_close(moved(plain_step(), doubled), 2 * moved(plain_step(), examples), atol=1e-6, rtol=1e-4)
    both, *others = (
        [(index, replace(example, weight=torch.tensor(weights))) for index, example in examples[:1]]
        for weights in ([1.0, 3.0], [1.0, 0.0], [0.0, 1.0])
    )
    first, second = (moved(plain_step(), each) for each in others)
    assert_close(moved(plain_step(), both), first + 3 * second, atol=1e-6, rtol=1e-4)
    losses = [numbers(plain_step(), each).loss_sums for each in (examples, doubled)]
    assert losses[0] == pytest.approx(losses[1])


def test_the_loss_that_is_chosen_is_minimised(examples: list[tuple[int, Example]]) -> None:
    """Far from the corner, Huber's loss pulls less than the square, and the square is what is recorded."""
    step, squares = plain_step(), plain_step()
    step.loss = LossFunction(settings(loss_type="huber", huber_schedule="constant", huber_c=1e-3).train)
    before, after = numbers(squares, examples), numbers(step, examples)
    assert before.loss_sums == pytest.approx(after.loss_sums)
    assert after.grad_norm < 0.01 * before.grad_norm


def test_the_learning_rate_scales_the_step(examples: list[tuple[int, Example]]) -> None:
    whole, half = (moved(plain_step(), examples, factor) for factor in (1.0, 0.5))
    assert_close(half, whole / 2, atol=1e-6, rtol=1e-4)


def test_processes_sum_gradients_and_numbers_in_two_transfers(examples: list[tuple[int, Example]]) -> None:
    """Stands in for two processes that compute the same: every sum is twice that of this process."""
    sizes: list[int] = []

    def twice(tensor: Tensor) -> None:
        sizes.append(tensor.numel())
        tensor.mul_(2)

    alone, together = plain_step(), plain_step()
    together.over_processes = GradientSum(together.parameters, reduce=twice)
    assert_close(moved(together, examples), 2 * moved(alone, examples), atol=1e-6, rtol=1e-4)
    assert sizes == [sum(parameter.numel() for parameter in together.parameters), 2 * SIGMA_BINS + 2]
    queued = together.run(examples, micro_batches=3, samples=12, lr_factor=1.0, flags=lambda: (True, False))
    numbers = StepNumbers.from_list(queued.tensor.tolist())
    assert numbers.flags == [True, False]
    assert sum(numbers.sample_counts) == 12


def test_a_step_that_is_bad_on_another_process_is_bad_here(examples: list[tuple[int, Example]]) -> None:
    def spoil(tensor: Tensor) -> None:
        tensor.add_(math.nan)

    step = plain_step()
    step.over_processes = GradientSum(step.parameters, reduce=spoil)
    assert not moved(step, examples).any()


def test_requests_are_asked_for_after_the_last_backward_pass(examples: list[tuple[int, Example]]) -> None:
    """A signal that arrives during a step is handled after this step."""
    events: list[str] = []

    def noted() -> Iterator[tuple[int, Example]]:
        for index, example in examples:
            events.append(f"micro-batch {index}")
            yield index, example

    def flags() -> tuple[bool]:
        events.append("flags")
        return (False,)

    plain_step().run(noted(), micro_batches=3, samples=6, lr_factor=1.0, flags=flags)
    assert events == ["micro-batch 0", "micro-batch 1", "micro-batch 2", "flags"]
