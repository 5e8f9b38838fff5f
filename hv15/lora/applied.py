"""LoRAs on a transformer that samples: the strength of each may differ by layer, and change from step to step.

The files are read once. When a strength changes, the forward hooks of all layers are registered anew, in the same
order: a layer whose strength is 0 has none, so it computes exactly as without the LoRA, and as fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from torch import nn
from torch.utils.hooks import RemovableHandle

from hv15.lora.apply import ChangeHook, hooks_of
from hv15.lora.changes import WeightChange
from hv15.lora.reach import EVERYWHERE, Reach, StrengthPart

MANY = 10_000
"""So many steps that each part of them has some."""


@dataclass(frozen=True)
class _Change:
    """The change of one layer by one LoRA."""

    layer: nn.Module
    hook: ChangeHook
    multiplier: float
    parts: tuple[StrengthPart, ...]
    """Those that are for this layer."""

    def strength(self, step: int, steps: int) -> float:
        return self.multiplier * prod(part.factor for part in self.parts if step in part.steps_of(steps))


class AppliedLoRAs:
    """The LoRAs that were added to a transformer. Until `begin_step` is called, strengths are those of a first step."""

    def __init__(self) -> None:
        self._changes: list[_Change] = []
        self._strengths: list[float] = []
        self._handles: list[RemovableHandle] = []

    def add(
        self, dit: nn.Module, changes: Mapping[str, WeightChange], multiplier: float, reach: Reach = EVERYWHERE
    ) -> None:
        """Add the changes of a LoRA, by official name, to those that are there.

        Args:
            multiplier: strength in addition to alpha/rank; 0 is exactly no LoRA.
            reach: on which layers it acts, and its factors there.

        Raises:
            UserError: the model lacks a module or has another size, a pattern matches nothing, or a range of blocks
                has no layer; then nothing is added.
        """
        chosen = {*reach.layers([*changes])}
        if multiplier == 0:
            return
        for (name, _), (layer, hook) in zip(changes.items(), hooks_of(dit, changes, multiplier), strict=True):
            if name in chosen:
                parts = tuple(part for part in reach.strength_by if part.has_layer(name))
                self._changes.append(_Change(layer, hook, multiplier, parts))
        self.begin_step(0, MANY)

    def begin_step(self, step: int, steps: int) -> bool:
        """Set the strengths of a step, from 0, of a sample of so many; return whether any is another than before.

        Then all that was kept of earlier passes (recordings, compiled code, what steps reuse) is wrong.
        """
        strengths = [change.strength(step, steps) for change in self._changes]
        if strengths == self._strengths:
            return False
        self._detach()
        for change, strength in zip(self._changes, strengths, strict=True):
            if strength:
                change.hook.set_multiplier(strength)
                self._handles.append(change.layer.register_forward_hook(change.hook))
        self._strengths = strengths
        return True

    def remove(self) -> None:
        """Take all of them away."""
        self._detach()
        self._changes, self._strengths = [], []

    def _detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
