"""Finished LoRAs beside the weights of a DiT: exact on any base, quantised ones too, each with its own strength.

They hang on the layers as forward hooks. Every supported layout and kind is taken. For LoRAs inside the weights see
`hv15.lora.merging`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hv15.lora.adapters import Adapter, Difference, Hadamard, Kronecker, LowRank
from hv15.lora.changes import WeightChange, read_changes
from hv15.lora.dora import Decomposed
from hv15.lora.lycoris import LycorisChange, forward_of
from hv15.lora.network import add_product
from hv15.models.weights.patches import check_targets
from hv15.models.weights.quantised import QuantisedLinear


def apply_lora(
    dit: nn.Module,
    state_dict: Mapping[str, Tensor],
    multiplier: float = 1.0,
) -> int:
    """Add a LoRA to a DiT without touching its weights; several add up.

    Args:
        dit: the model; its module names are the official ones.
        state_dict: a LoRA of any layout, as `read_lora` gives it.
        multiplier: strength on top of alpha/rank; 0 is exactly no LoRA.

    Returns:
        How many linear layers it changes.

    Raises:
        UserError: unknown keys or kinds, modules that this model does not have, wrong sizes, lycoris-lora missing.
    """
    changes = read_changes(state_dict)
    layers = check_targets(dit, {name: change.shape for name, change in changes.items()})
    hooks = {name: _hook(change, multiplier) for name, change in changes.items()} if multiplier != 0.0 else {}
    for name, hook in hooks.items():
        layers[name].register_forward_hook(hook)
    return len(layers)


class _AddLowRank:
    """A forward hook that adds a LoRA's share; its factors follow the activations' device and dtype."""

    def __init__(self, adapter: LowRank, multiplier: float) -> None:
        self.down, self.up, self.scale = adapter.down, adapter.up, adapter.scale * multiplier

    def __call__(self, _layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = args[0]
        if self.down.device != x.device or self.down.dtype != x.dtype:  # once, not at each step
            self.down, self.up = self.down.to(x.device, x.dtype), self.up.to(x.device, x.dtype)
        return add_product(output, F.linear(x, self.down), self.up, self.scale)


class _AddForward:
    """A forward hook that adds what another kind of adapter makes of the input."""

    def __init__(self, forward: Callable[[Tensor], Tensor], multiplier: float) -> None:
        self.forward, self.multiplier = forward, multiplier

    def __call__(self, _layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output.add_(self.forward(args[0]), alpha=self.multiplier)


class _AddWeightChange:
    """A forward hook that adds what merged weight - weight makes of the input, for kinds that depend on the weight.

    The merged weight is made anew for each layer and step, because all of them would take as much memory as the model.
    """

    def __init__(self, change: Decomposed | LycorisChange, multiplier: float) -> None:
        self.change, self.multiplier = change, multiplier
        self.device = torch.device("cpu")

    def __call__(self, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = args[0]
        if self.device != x.device:  # once, not at each step
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
