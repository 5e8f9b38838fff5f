"""One optimizer step: micro-batches -> losses -> gradients -> sum over the processes -> clipping -> update.

- The gradient is that of the mean weighted loss over all samples of the step, regardless of their batches and
  processes. With context parallelism each process has the gradients of its tokens, so they are summed in the same way.
- Where a target is the prediction without the LoRA, that is computed first, with the LoRA switched off.
- If the loss or the gradient is not finite, the step changes nothing (hv15.train.guard).
- Everything is queued on the device without waiting; the caller fetches the numbers.
- The planner runs the same object on tensors without data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from hv15.records.metrics import SIGMA_BINS
from hv15.train.examples import Example
from hv15.train.gradient_sum import GradientSum
from hv15.train.guard import Guard
from hv15.train.losses import LossFunction
from hv15.train.metrics import loss_numbers
from hv15.train.moving_average import MovingAverage
from hv15.train.objective import losses_of
from hv15.train.optimizers import set_learning_rate
from hv15.train.random import seed_for
from hv15.train.weight_norms import NormLimit

if TYPE_CHECKING:
    from hv15.models import DiT


class TrainableNetwork(Protocol):
    """What a training needs of the network that it trains (`hv15.lora.LoRANetwork`)."""

    def set_step_seed(self, seed: int) -> None: ...

    def switched_off(self, dit: DiT, /) -> AbstractContextManager[None]: ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: dict[str, Tensor], /) -> object: ...


class QueuedNumbers(NamedTuple):
    """The results of a step, which are still on the device."""

    lr: float
    """Learning rate of the first parameter group, times what the optimizer found itself."""
    tensor: Tensor
    """All numbers of `StepNumbers` in one tensor, fp32 [n], so that they need only one copy to the host."""


class StepNumbers(NamedTuple):
    """The numbers of a step, over all its samples on all processes."""

    loss_sums: list[float]
    """Sums of the recorded losses, by bin of sigma."""
    sample_counts: list[float]
    """Numbers of samples, by bin of sigma."""
    prior_loss_sum: float
    """Sum of the losses against the prediction without the LoRA."""
    prior_count: float
    """Number of samples that have such a loss."""
    flags: list[bool]
    """Whether each flag was set on any process."""
    grad_norm: float
    """The norm of the gradients before clipping."""
    weight_norm: float
    """The mean norm of what the LoRA adds to a layer's weights, after the step; NaN if norms have no limit."""
    scaled_layers: float
    """The share of layers whose norm was beyond its limit; NaN if norms have none."""

    @classmethod
    def from_list(cls, numbers: Sequence[float]) -> StepNumbers:
        """Make them from the content of `QueuedNumbers.tensor`."""
        *numbers, grad_norm, weight_norm, scaled_layers = numbers
        sums, counts, rest = numbers[:SIGMA_BINS], numbers[SIGMA_BINS : 2 * SIGMA_BINS], numbers[2 * SIGMA_BINS :]
        prior_sum, prior_count, *flags = rest
        flagged = [flag > 0 for flag in flags]
        return cls(list(sums), list(counts), prior_sum, prior_count, flagged, grad_norm, weight_norm, scaled_layers)


@dataclass
class OptimizerStep:
    """Updates the parameters of `network`, which is attached to `dit`, with `optimizer`."""

    dit: DiT
    network: TrainableNetwork
    optimizer: torch.optim.Optimizer
    device: torch.device
    """The device of the DiT, to which examples are moved."""
    seed: int
    """The seed of the dropout masks."""
    max_grad_norm: float
    """Gradients are scaled down to this norm; 0 means never."""
    loss: LossFunction
    over_processes: GradientSum | None = None
    """Sums over all processes of the training; None if there is only one process."""
    norm_limit: NormLimit | None = None
    """Limits the network's norms after each step."""
    average: MovingAverage | None = None
    """Follows the network's parameters."""

    def run(
        self,
        examples: Iterable[tuple[int, Example]],
        *,
        micro_batches: int,
        samples: int,
        lr_factor: float,
        flags: Callable[[], Sequence[bool]] = tuple,
    ) -> QueuedNumbers:
        """Run one step.

        Args:
            examples: this process's micro-batches of the step, each with its global index, which seeds its dropout.
            micro_batches: the number of `examples`.
            samples: the number of samples in all micro-batches of the step on all processes.
            lr_factor: the factor on the peak learning rate.
            flags: returns this process's flags; called after the backward passes. In the result, a flag is set if it is
                set on any process.
        """
        tables: list[Tensor] = []
        for position, (index, example) in enumerate(examples):
            example = example.to(self.device, self.dit.dtype)
            self.network.set_step_seed(seed_for(self.seed, "dropout", index))
            prior = self._prior(example) if example.with_prior else None
            losses = losses_of(self.loss, example, example.prediction(self.dit), prior)
            with self._backward(is_last=position == micro_batches - 1):
                ((losses.minimised * example.weight).sum() / samples).backward()
            tables.append(loss_numbers(losses, example.sigma))
        numbers = torch.stack(tables).sum(0)
        if (parallel := self.dit.context_parallel) is not None and parallel.rank > 0:
            numbers = torch.zeros_like(numbers)  # the first rank counts the samples that they computed together
        numbers = self._sum_up(torch.cat([numbers, *(numbers.new_full((1,), flag) for flag in flags())]))
        grad_norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm or math.inf)
        lr = set_learning_rate(self.optimizer, lr_factor)
        numbers = torch.cat([numbers, grad_norm.view(1)])
        good = numbers.isfinite().all()
        self.guard.step(good)
        self.optimizer.zero_grad(set_to_none=True)
        norms = numbers.new_full((2,), math.nan) if self.norm_limit is None else self.norm_limit.apply(good)
        if self.average is not None:
            self.average.update(good)
        return QueuedNumbers(lr, torch.cat([numbers, norms]))

    @cached_property
    def guard(self) -> Guard:
        """Updates the parameters if the step's numbers are finite."""
        return Guard.on(self.device, self.optimizer)

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        return self.guard.parameters

    @torch.no_grad()
    def _prior(self, example: Example) -> Tensor:
        """Return the velocity that the model predicts without the LoRA, fp32 [B, C, F', h, w]."""
        with self.network.switched_off(self.dit):
            return example.prediction(self.dit)

    def _backward(self, *, is_last: bool) -> AbstractContextManager[None]:
        return nullcontext() if self.over_processes is None else self.over_processes.backward(is_last=is_last)

    def _sum_up(self, numbers: Tensor) -> Tensor:
        """Sum the gradients and the step's numbers over all processes."""
        if self.over_processes is not None:
            self.over_processes.finish()
            return self.over_processes.sum(numbers)
        for parameter in self.parameters:
            if parameter.grad is None:  # a skipped layer, or the unused text stream of the last block
                parameter.grad = torch.zeros_like(parameter)
        return numbers
