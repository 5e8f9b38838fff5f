"""Applies finished LoRAs to a DiT without changing its weights: exact on any base, quantised or not.

Each LoRA has its own strength and is added by forward hooks on the layers. All supported layouts and kinds work. To
merge LoRAs into the weights see `hv15.lora.merging`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from hv15.lora.adapters import Adapter, Difference, Hadamard, Kronecker, LowRank
from hv15.lora.changes import WeightChange, read_changes
from hv15.lora.dora import Decomposed
from hv15.lora.lycoris import LycorisChange, forward_of
from hv15.lora.network import add_product
from hv15.models.adapted import LowRankHook
from hv15.models.weights.patches import check_targets
from hv15.models.weights.quantised import QuantisedLinear


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
    layers = check_targets(dit, {name: change.shape for name, change in changes.items()})
    hooks = {name: _hook(change, multiplier) for name, change in changes.items()} if multiplier != 0.0 else {}
    return [layers[name].register_forward_hook(hook) for name, hook in hooks.items()]


class _AddLowRank(LowRankHook):
    """Adds a LoRA's output; its factors are moved to the activations' device and dtype."""

    def __init__(self, adapter: LowRank, multiplier: float) -> None:
        self.down, self.up, self.scale = adapter.down, adapter.up, adapter.scale * multiplier

    def __call__(self, _layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        down, up = self.factors(args[0])
        return add_product(output, F.linear(args[0], down), up, self.scale)

    @property
    def learned(self) -> tuple[Tensor, Tensor]:
        return self.down, self.up

    def factors(self, like: Tensor) -> tuple[Tensor, Tensor]:
        if self.down.device != like.device or self.down.dtype != like.dtype:  # only in the first step
            self.down, self.up = self.down.to(like.device, like.dtype), self.up.to(like.device, like.dtype)
        return self.down, self.up


class _AddForward:
    """A forward hook that adds the output of another kind of adapter."""

    def __init__(self, forward: Callable[[Tensor], Tensor], multiplier: float) -> None:
        self.forward, self.multiplier = forward, multiplier

    def __call__(self, _layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output.add_(self.forward(args[0]), alpha=self.multiplier)


class _AddWeightChange:
    """A forward hook that adds the output of (merged weight - weight), for kinds that depend on the weight.

    The merged weight is computed again for each layer and step, because keeping all would take as much memory as the
    model.
    """

    def __init__(self, change: Decomposed | LycorisChange, multiplier: float) -> None:
        self.change, self.multiplier = change, multiplier
        self.device = torch.device("cpu")

    def __call__(self, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = args[0]
        if self.device != x.device:  # only in the first step
            self.change, self.device = self.change.to(x.device), x.device
        return output.add_(F.linear(x, self._difference(layer).to(x.dtype)))

    @torch.no_grad()
    def _difference(self, layer: nn.Module) -> Tensor:
        assert isinstance(layer, nn.Linear | QuantisedLinear)
        weight = layer.dequantised() if isinstance(layer, QuantisedLinear) else layer.weight.float()
        return self.change.merged(weight, self.multiplier) - weight


class _FullDifference:
    """x (..., in) -> x @ diff^T (..., out)."""

    def __init__(self, diff: Tensor) -> None:
        self.diff = diff

    def __call__(self, x: Tensor) -> Tensor:
        self.diff = self.diff.to(x.device, x.dtype)
        return F.linear(x, self.diff)


def _hook(change: WeightChange, multiplier: float) -> _AddLowRank | _AddForward | _AddWeightChange:
    if isinstance(change, LowRank):
        return _AddLowRank(change, multiplier)
    if isinstance(change, Difference):
        return _AddForward(_FullDifference(change.diff), multiplier)
    if isinstance(change, Hadamard | Kronecker):
        return _AddForward(forward_of(change), multiplier)
    assert not isinstance(change, Adapter)
    return _AddWeightChange(change, multiplier)
