"""Applies finished LoRAs to a DiT without changing its weights: exact on any base, quantised or not.

Each LoRA has its own strength and is added by forward hooks on the layers. All supported layouts and kinds work, also
beneath a LoRA that is trained. For strengths that differ by layer or change while sampling see `hv15.lora.applied`; to
merge LoRAs into the weights see `hv15.lora.merging`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from hv15.lora.adapters import Adapter, Difference, Hadamard, Kronecker, LowRank
from hv15.lora.branches import output_without_loras
from hv15.lora.changes import WeightChange, read_changes
from hv15.lora.dora import Decomposed, DecomposedRows, ScaledRows, row_norms
from hv15.lora.lycoris import LycorisChange
from hv15.lora.products import add_product, hadamard_output, kronecker_output, scaled_change
from hv15.models.adapted import LowRankHook
from hv15.models.weights.patches import check_targets
from hv15.models.weights.quantised import QuantisedLinear, plain_weight


class ChangeHook(Protocol):
    """A forward hook that adds the output of a layer's change; its strength may be set anew between two passes."""

    def __call__(self, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor, /) -> Tensor:
        """Add the change's output for x (..., in) to the layer's output (..., out), which is overwritten."""

    def set_multiplier(self, multiplier: float) -> None:
        """Set the strength, in addition to alpha/rank."""


def apply_lora(
    dit: nn.Module,
    state_dict: Mapping[str, Tensor],
    multiplier: float = 1.0,
) -> int:
    """Add a LoRA to a DiT without changing its weights; several LoRAs add up.

    Args:
        dit: the model, with the official module names.
        state_dict: a LoRA of any layout, as `read_lora` returns it.
        multiplier: strength in addition to alpha/rank; 0 is exactly no LoRA.

    Returns:
        The number of linear layers that it changes.

    Raises:
        UserError: keys or kinds are unknown, the model lacks a module or has another size, or lycoris-lora is missing.
    """
    changes = read_changes(state_dict)
    add_changes(dit, changes, multiplier)
    return len(changes)


def add_changes(dit: nn.Module, changes: Mapping[str, WeightChange], multiplier: float) -> list[RemovableHandle]:
    """Add changes of layers, by official name, as `apply_lora` does; return the handles that remove them again.

    Raises:
        UserError: the model lacks a module or has another size.
    """
    return [layer.register_forward_hook(hook) for layer, hook in hooks_of(dit, changes, multiplier)]


def hooks_of(
    dit: nn.Module, changes: Mapping[str, WeightChange], multiplier: float
) -> list[tuple[nn.Module, ChangeHook]]:
    """Return the layers that changes are for, in their order, with the forward hooks that add them; none for 0.

    Raises:
        UserError: the model lacks a module or has another size.
    """
    layers = check_targets(dit, {name: change.shape for name, change in changes.items()})
    if multiplier == 0.0:
        return []
    return [(layers[name], _hook(change, multiplier)) for name, change in changes.items()]


class _AddLowRank(LowRankHook):
    """Adds a LoRA's output; its factors are moved to the activations' device and dtype."""

    def __init__(self, adapter: LowRank, multiplier: float) -> None:
        self.down, self.up, self._own_scale = adapter.down, adapter.up, adapter.scale
        self.set_multiplier(multiplier)

    def __call__(self, _layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        down, up = self.factors(args[0])
        return add_product(output, F.linear(args[0], down), up, self.scale)

    def set_multiplier(self, multiplier: float) -> None:
        self.scale = self._own_scale * multiplier

    @property
    def learned(self) -> tuple[Tensor, Tensor]:
        return self.down, self.up

    def factors(self, like: Tensor) -> tuple[Tensor, Tensor]:
        if self.down.device != like.device or self.down.dtype != like.dtype:  # only in the first step
            self.down, self.up = self.down.to(like.device, like.dtype), self.up.to(like.device, like.dtype)
        return self.down, self.up


class _AddForward:
    """A forward hook that adds the output of another kind of adapter."""

    def __init__(self, adapter: Adapter, multiplier: float) -> None:
        self.forward, self.multiplier = _Forward(adapter), multiplier

    def __call__(self, _layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output.add_(self.forward(args[0]), alpha=self.multiplier)

    def set_multiplier(self, multiplier: float) -> None:
        self.multiplier = multiplier


class _ScaleRows:
    """A forward hook that adds the output of a DoRA that scales rows; the norms are computed in the first step."""

    def __init__(self, change: ScaledRows, multiplier: float) -> None:
        self.forward, self.magnitude, self.multiplier = _Forward(change.adapter), change.magnitude, multiplier
        self.growth: Tensor | None = None

    def __call__(self, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = args[0]
        assert isinstance(layer, nn.Linear | QuantisedLinear)
        if self.growth is None or self.growth.device != x.device:
            self.growth = self._growth_of(layer, x.device)
        base = output_without_loras(layer, x, output, self)
        return output.add_(scaled_change(base, layer.bias, self.forward(x), self.growth), alpha=self.multiplier)

    def set_multiplier(self, multiplier: float) -> None:
        self.multiplier = multiplier

    @torch.no_grad()
    def _growth_of(self, layer: nn.Linear | QuantisedLinear, device: torch.device) -> Tensor:
        return self.magnitude[:, 0].to(device, torch.float32) / row_norms(plain_weight(layer)) - 1


class _AddWeightChange:
    """A forward hook that adds the output of (merged weight - weight), for kinds that depend on the weight.

    The merged weight is computed again for each layer and step, because keeping all would take as much memory as the
    model.
    """

    def __init__(self, change: Decomposed | DecomposedRows | LycorisChange, multiplier: float) -> None:
        self.change, self.multiplier = change, multiplier
        self.device = torch.device("cpu")

    def __call__(self, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = args[0]
        if self.device != x.device:  # only in the first step
            self.change, self.device = self.change.to(x.device), x.device
        return output.add_(F.linear(x, self._difference(layer).to(x.dtype)))

    def set_multiplier(self, multiplier: float) -> None:
        self.multiplier = multiplier

    @torch.no_grad()
    def _difference(self, layer: nn.Module) -> Tensor:
        assert isinstance(layer, nn.Linear | QuantisedLinear)
        weight = plain_weight(layer)
        return self.change.merged(weight, self.multiplier) - weight


class _Forward:
    """x (..., in) -> the output (..., out) of an adapter, whose tensors are moved to the activations' device."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter, self.device, self.dtype = adapter, torch.device("meta"), torch.float32

    def __call__(self, x: Tensor) -> Tensor:
        if self.device != x.device or self.dtype != x.dtype:  # only in the first step
            self.adapter, self.device, self.dtype = _moved(self.adapter, x), x.device, x.dtype
        match self.adapter:
            case LowRank(down, up, _):
                return F.linear(F.linear(x, down) * self.adapter.scale, up)
            case Hadamard(w1_a, w1_b, w2_a, w2_b, _):
                return hadamard_output(x, (w1_a, w1_b, w2_a, w2_b), self.adapter.scale)
            case Kronecker((w1,), w2, _):
                return kronecker_output(x, w1, w2, self.adapter.scale)
            case Kronecker((w1_a, w1_b), w2, _):
                return kronecker_output(x, w1_a.float() @ w1_b.float(), w2, self.adapter.scale)
            case Difference(diff):
                return F.linear(x, diff)
            case _:
                raise TypeError(f"{type(self.adapter).__name__} has no output of its own")


def _moved(adapter: Adapter, like: Tensor) -> Adapter:
    """Move an adapter to a tensor's device; matrices that are multiplied by it as they are get its dtype, too."""
    match adapter.to(like.device):
        case LowRank(down, up, alpha):
            return LowRank(down.to(like.dtype), up.to(like.dtype), alpha)
        case Difference(diff):
            return Difference(diff.to(like.dtype))
        case moved:
            return moved


def _hook(change: WeightChange, multiplier: float) -> ChangeHook:
    if isinstance(change, LowRank):
        return _AddLowRank(change, multiplier)
    if isinstance(change, Adapter):
        return _AddForward(change, multiplier)
    if isinstance(change, ScaledRows):
        return _ScaleRows(change, multiplier)
    assert isinstance(change, Decomposed | DecomposedRows | LycorisChange)
    return _AddWeightChange(change, multiplier)
