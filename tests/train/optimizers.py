"""Every optimizer that has a name, some classes by their path, and steps on matrices of a LoRA's shapes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hv15.train.optimizers import make_optimizer, set_learning_rate

ARGS: dict[str, dict[str, Any]] = {
    "AdamW": {},
    "AdamW8bit": {},
    "PagedAdamW8bit": {},
    "Adafactor": {},
    "Muon": {},
    "Lion": {},
    "CAME": {},
    "AdEMAMix": {},
    "Prodigy": {"d0": 1e-4},
    "ProdigyPlusScheduleFree": {"d0": 1e-4},
    "AdamWScheduleFree": {},
}
"""Name -> arguments with which some steps move the matrices."""
FINDS_RATE = ("Prodigy", "ProdigyPlusScheduleFree")


def matrices() -> list[nn.Parameter]:
    """A down and an up matrix, large enough for 8-bit and factored state; the second is 0, as in a new LoRA."""
    rng = torch.Generator().manual_seed(3)
    return [nn.Parameter(torch.randn(8, 1024, generator=rng)), nn.Parameter(torch.zeros(1024, 8))]


def optimizer_of(name: str, parameters: Sequence[nn.Parameter], **args: Any) -> torch.optim.Optimizer:
    """With a group for each parameter, as a LoRA has."""
    rate = 1.0 if name in FINDS_RATE else 0.01
    groups = [{"params": [each], "lr": rate, "name": str(number)} for number, each in enumerate(parameters)]
    return make_optimizer(name, groups, {**ARGS.get(name, {}), **args})


def stepped(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[nn.Parameter],
    steps: Iterable[int] = range(4),
    factor: float = 1.0,
) -> list[Tensor]:
    """Do steps, whose gradients depend on their numbers; return the parameters."""
    for step in steps:
        rng = torch.Generator().manual_seed(step)
        for parameter in parameters:
            parameter.grad = 0.3 * torch.randn(parameter.shape, generator=rng) + 0.3 * parameter.detach() + 0.5
        if "initial_lr" in optimizer.param_groups[0]:
            set_learning_rate(optimizer, factor)
        optimizer.step()
    return [parameter.detach() for parameter in parameters]
