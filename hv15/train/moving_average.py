"""The exponential moving average (EMA) of a LoRA while it is trained: smoother than its last step.

    average = d * average + (1 - d) * LoRA     after each step, with d = min(decay, (1 + t) / (10 + t))

t is the number of steps before this one: the beginning, when the LoRA changes quickly, is forgotten soon. (The warm-up
is that of TensorFlow's ExponentialMovingAverage.) A step that was bad changes nothing (`hv15.train.guard`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

PARTS = 8
"""The average is updated in so many parts, because an update needs as much memory again."""


def decay_after(steps: int, decay: float) -> float:
    """Return the share of the average that the step after `steps` others keeps."""
    return min(decay, (1 + steps) / (10 + steps))


class MovingAverage:
    """The average of parameters, by name, fp32.

    On the parameters' device it is updated there, and nothing is waited for. In the machine's memory (`staged`), each
    step's parameters are copied there while the next step runs, and averaged when the step after it is queued.

    Args:
        parameters: of any shapes; they are changed in place.
        decay: the most that a step keeps.
        staged: whether the average is in the machine's memory.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float, *, staged: bool = False) -> None:
        self.decay, self.steps = decay, 0
        self.names, self._parameters = [*parameters], [each.detach() for each in parameters.values()]
        device = torch.device("cpu") if staged else self._parameters[0].device
        self.values = [each.to(device, copy=True) for each in self._parameters]
        self._copy = _Copy(self._parameters) if staged else None

    @torch.no_grad()
    def update(self, good: Tensor) -> None:
        """Take the parameters after a step, if it was `good`, a boolean scalar on their device."""
        share = 1 - decay_after(self.steps, self.decay)
        self.steps += 1
        if self._copy is not None:
            self._settle()
            self._copy.begin(self._parameters, good, share)
            return
        _approach(self.values, self._parameters, good * share)

    def state(self) -> dict[str, Tensor]:
        """Return the average by name, in the parameters' shapes; it shares the memory of this object."""
        self._settle()
        return dict(zip(self.names, self.values, strict=True))

    def restore(self, state: Mapping[str, Tensor], steps: int) -> None:
        """Take over an average by name, in the parameters' shapes, and the number of steps that are in it."""
        self._settle()
        self.steps = steps
        for name, value in zip(self.names, self.values, strict=True):
            value.copy_(state[name])

    def begin(self) -> None:
        """Begin anew, from the parameters as they are."""
        self.restore(dict(zip(self.names, self._parameters, strict=True)), 0)

    @torch.no_grad()
    def _settle(self) -> None:
        """Average what was copied."""
        if self._copy is not None and (share := self._copy.finish()):
            _approach(self.values, self._copy.staged, torch.tensor(share))


class _Copy:
    """Copies tensors to the machine's memory without waiting for it."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._pinned = tensors[0].device.type == "cuda"
        self.staged = [torch.empty(each.shape, dtype=each.dtype, pin_memory=self._pinned) for each in tensors]
        self._good = torch.empty((), dtype=torch.bool, pin_memory=self._pinned)
        self._share = 0.0
        self._event: torch.cuda.Event | None = None

    def begin(self, tensors: Sequence[Tensor], good: Tensor, share: float) -> None:
        """Queue the copies."""
        for target, source in zip((*self.staged, self._good), (*tensors, good), strict=True):
            target.copy_(source, non_blocking=self._pinned)
        self._share = share
        if self._pinned:
            self._event = torch.cuda.Event()
            self._event.record()

    def finish(self) -> float:
        """Wait for what is queued; return the share that it gets in the average: 0 for nothing, or a bad step."""
        share, self._share = self._share, 0.0
        if self._event is not None:
            self._event.synchronize()
        return share if share and self._good else 0.0


def _approach(values: Sequence[Tensor], targets: Sequence[Tensor], share: Tensor) -> None:
    """Move values of any shapes towards targets by a share, a scalar on their device."""
    for part, wanted in zip(_parts(values), _parts(targets), strict=True):
        change = torch._foreach_sub(wanted, part)
        torch._foreach_mul_(change, share)
        torch._foreach_add_(part, change)


def _parts(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    size = -(-len(tensors) // PARTS)
    yield from (list(tensors[start : start + size]) for start in range(0, len(tensors), size))
