"""An optimizer step that changes nothing if the loss or the gradients of the step are not finite.

On a CPU the optimizer is simply not called. On a GPU the device decides, so that nothing has to be waited for: the
optimizer updates a part of the matrices at a time, and their former content and that of its tensors for them is put
back if the step was bad. Such a step still counts in the number of steps that an optimizer keeps on the host, as AdamW
does for its bias correction; so it does in the schedule of the learning rate.

This is for optimizers that update each matrix by itself. With the others the host waits for the numbers: they look at
all matrices together or keep numbers on the host, and bitsandbytes' wait for the GPU after each matrix anyway.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from hv15.models.weights.no_data import has_no_data

PARTS = 8
"""Parts of a group of parameters, which are updated one after another: copies of one part take little memory."""
EACH_ALONE = (("torch", "AdamW"), ("torch", "Muon"), ("transformers", "Adafactor"))
"""Package and class of optimizers that update each matrix by itself, and keep nothing else but the number of steps."""


@dataclass
class Guard:
    """Steps an optimizer, if the step is good."""

    optimizer: torch.optim.Optimizer
    at_once: bool
    """Whether the host looks at the numbers of a step before it calls the optimizer."""

    @classmethod
    def on(cls, device: torch.device, optimizer: torch.optim.Optimizer) -> Guard:
        """Make the guard of an optimizer whose parameters are on this device."""
        kind = type(optimizer)
        package = kind.__module__.partition(".")[0]
        return cls(optimizer, device.type == "cpu" or (package, kind.__name__) not in EACH_ALONE)

    @cached_property
    def parameters(self) -> list[torch.nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    @torch.no_grad()
    def step(self, good: Tensor) -> None:
        """Update all parameters by their gradients if `good`, a boolean scalar on their device."""
        if self.at_once:
            if has_no_data(good) or good:
                self.optimizer.step()
            return
        gradients = {parameter: parameter.grad for parameter in self.parameters}
        for parameter in self.parameters:
            parameter.grad = None
        for part in self._parts():
            for parameter in part:
                gradient = gradients.pop(parameter)
                assert gradient is not None
                # The first step makes the optimizer's tensors, so there is nothing to put back: a bad one gets zeros.
                known = bool(self.optimizer.state.get(parameter))
                parameter.grad = gradient if known else torch.where(good, gradient, torch.zeros_like(gradient))
            self._step_part(part, good)

    def _parts(self) -> list[list[torch.nn.Parameter]]:
        """The parameters that are updated together."""
        found = []
        for group in self.optimizer.param_groups:
            all_its = group["params"]
            bounds = [place * len(all_its) // PARTS for place in range(PARTS + 1)]
            found += [all_its[start:end] for start, end in pairwise(bounds) if start < end]
        return found

    def _step_part(self, part: Sequence[torch.nn.Parameter], good: Tensor) -> None:
        before = self._tensors(part)
        former = _Former(list(before.values()))
        self.optimizer.step()
        now = self._tensors(part)
        former.put_back([now[key] for key in before], unless=good)
        for parameter in part:
            parameter.grad = None

    def _tensors(self, part: Sequence[torch.nn.Parameter]) -> dict[tuple[int, str], Tensor]:
        """The matrices (named "") and the optimizer's tensors for them, as far as they are on the device."""
        found: dict[tuple[int, str], Tensor] = {}
        for number, parameter in enumerate(part):
            found[number, ""] = parameter.detach()
            for name, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor) and value.device == parameter.device:
                    found[number, name] = value
        return found


class _Former:
    """The content of tensors at a moment, in one piece of memory for each number format."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        numbers: dict[torch.dtype, list[int]] = defaultdict(list)
        for number, tensor in enumerate(tensors):
            numbers[tensor.dtype].append(number)
        self._pieces = [(group, _joined([tensors[number] for number in group])[0]) for group in numbers.values()]

    def put_back(self, tensors: Sequence[Tensor], *, unless: Tensor) -> None:
        """Put the content back into the same tensors, in the same order, `unless` that scalar is true."""
        for group, former in self._pieces:
            chosen = [tensors[number] for number in group]
            content, parts = _joined(chosen)
            torch.where(unless, content, former, out=content)
            torch._foreach_copy_(chosen, parts)


def _joined(tensors: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Copy tensors of one number format into one [n]; return it and its parts, in their shapes."""
    sizes = [tensor.numel() for tensor in tensors]
    joined = torch.empty(sum(sizes), dtype=tensors[0].dtype, device=tensors[0].device)
    parts = [part.view(tensor.shape) for part, tensor in zip(joined.split(sizes), tensors, strict=True)]
    torch._foreach_copy_(parts, list(tensors))
    return joined, parts
