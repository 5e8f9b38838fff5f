"""The stretches of a transformer's step, and their extrapolation from few blocks to many.

Blocks are alike, so a model of 54 is not run as a whole. Models of 3 and of 4 blocks are, and each stretch of the step
(block i in the forward or the backward pass, the optimizer) is extrapolated to the real number. Memory in a stretch is
linear in the number of blocks and in the block's place, so the largest value occurs at the first two or the last two
blocks: the peak is that of the whole model, to the byte. Tests compare the two.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from hv15.lora import LoRANetwork
from hv15.models import DiT
from hv15.models.dit_files import block_number
from hv15.models.weights.block_hooks import BlockHook
from hv15.plan.cost import Cost, extrapolate_parts
from hv15.plan.meter import Meter
from hv15.plan.work import extrapolate_work

GRADIENTS, OPTIMIZER = "gradients", "optimizer"
FEW_BLOCKS = 3
"""Blocks of the smaller of the two models that are run. The first and the last block differ from those between."""
BEFORE_BLOCKS = -1


class Stretch(NamedTuple):
    """A piece of a step that has a peak of its own."""

    forward_pass: int
    """Forward passes that have begun."""
    direction: str
    """forward, back, or optimizer."""
    block: int
    """The block that computes, or BEFORE_BLOCKS."""


class StretchHook(BlockHook):
    """Tells a meter which stretch of the step begins. It cannot be taken off the transformer again."""

    def __init__(self, meter: Meter, dit: DiT) -> None:
        self.meter, self.forward_pass, self.direction = meter, 0, ""
        dit.register_forward_pre_hook(self._begin_forward)
        dit.register_forward_hook(self._end_forward)
        dit.block_hooks = (self, *dit.block_hooks)

    def before_block(self, index: int) -> None:
        self.meter.begin(Stretch(self.forward_pass, self.direction, index))

    def watch_gradients(self, network: LoRANetwork) -> None:
        """Count gradients as such; the block whose gradients come is the one that computes."""
        for name, branch in zip(network.module_names, network.children(), strict=True):
            for parameter in branch.parameters():
                parameter.register_post_accumulate_grad_hook(partial(self._take_gradient, block_number(name)))

    def watch_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Count what the optimizer makes as its own."""
        stack = ExitStack()

        def before(*_: object) -> None:
            self.meter.begin(Stretch(self.forward_pass, "optimizer", BEFORE_BLOCKS))
            stack.enter_context(self.meter.making(OPTIMIZER))

        optimizer.register_step_pre_hook(before)
        optimizer.register_step_post_hook(lambda *_: stack.close())

    def _begin_forward(self, *_: object) -> None:
        self.forward_pass, self.direction = self.forward_pass + 1, "forward"
        self.before_block(BEFORE_BLOCKS)

    def _end_forward(self, *_: object) -> None:
        self.direction = "back"

    def _take_gradient(self, index: int, parameter: Tensor) -> None:
        self.meter.assign(GRADIENTS, parameter.grad)
        self.before_block(index)


def cost_with_blocks(run: Callable[[int], Meter], blocks: int) -> Cost:
    """Return what a step takes with this many blocks; `run` meters a step with any number of them."""
    if blocks <= FEW_BLOCKS + 1:
        meter = run(blocks)
        return Cost(max(meter.moments.values(), key=_size), dict(meter.work), validation=dict(meter.validation))
    few, more = run(FEW_BLOCKS), run(FEW_BLOCKS + 1)
    times = blocks - FEW_BLOCKS
    peaks = [extrapolate_parts(few.moments[here], more.moments[there], times) for here, there in _same_places(few)]
    work, validation = (
        extrapolate_work(less, greater, times)
        for less, greater in ((few.work, more.work), (few.validation, more.validation))
    )
    return Cost(max(peaks, key=_size), work, validation=validation)


def _same_places(few: Meter) -> list[tuple[Stretch, Stretch]]:
    """Pairs of stretches of the smaller and the larger model, at the same distance from the first or the last block."""
    stretches = [each for each in few.moments if isinstance(each, Stretch)]
    from_first = [(each, each) for each in stretches if each.block < FEW_BLOCKS - 1]
    from_last = [(each, each._replace(block=each.block + 1)) for each in stretches if each.block > 0]
    return from_first + from_last


def _size(parts: dict[str, int]) -> int:
    return sum(parts.values())
