"""Finished LoRAs beside the weights of a DiT: exact on any base, quantised ones too, each with its own strength.

They hang on the layers as forward hooks. Every supported layout is taken; what LyCORIS alone knows goes through
lycoris-lora (`hv15.lora.lycoris`). For LoRAs inside the weights see `hv15.lora.merging`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from hv15.lora.adapters import Adapter, Difference, LowRank
from hv15.lora.formats import arrange, read_parts
from hv15.lora.lycoris import apply_lycoris, forward_of, needs_lycoris
from hv15.lora.network import add_product
from hv15.models.weights.patches import check_targets


def apply_lora(
    dit: nn.Module,
    state_dict: Mapping[str, Tensor],
    multiplier: float = 1.0,
) -> int:
    """Add a LoRA to a DiT without touching its weights; several add up.

    Args:
        dit: the model; its module names are the official ones.
        state_dict: a LoRA of any layout, as `read_lora` gives it.
        multiplier: strength on top of alpha/rank.

    Returns:
        How many linear layers it changes.

    Raises:
        UserError: unknown keys, modules that this model does not have, wrong sizes.
    """
    if needs_lycoris(state_dict):
        return apply_lycoris(dit, state_dict, multiplier)
    adapters = arrange(read_parts(state_dict), "official")
    layers = check_targets(dit, {name: adapter.shape for name, adapter in adapters.items()})
    if multiplier != 0.0:
        for name, adapter in adapters.items():
            layers[name].register_forward_hook(_hook(adapter, multiplier))
    return len(layers)


class _AddLowRank:
    """A forward hook that adds a LoRA's share; its factors follow the activations' device and dtype."""

    def __init__(self, adapter: LowRank, multiplier: float) -> None:
        self.down, self.up, self.scale = adapter.down, adapter.up, adapter.scale * multiplier

    def __call__(self, _module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = args[0]
        if self.down.device != x.device or self.down.dtype != x.dtype:  # once, not at each step
            self.down, self.up = self.down.to(x.device, x.dtype), self.up.to(x.device, x.dtype)
        return add_product(output, F.linear(x, self.down), self.up, self.scale)


class _AddForward:
    """A forward hook that adds what another form of adapter makes of the input."""

    def __init__(self, forward: Callable[[Tensor], Tensor], multiplier: float) -> None:
        self.forward, self.multiplier = forward, multiplier

    def __call__(self, _module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output.add_(self.forward(args[0]), alpha=self.multiplier)


class _FullDifference:
    """x -> x @ diff^T."""

    def __init__(self, diff: Tensor) -> None:
        self.diff = diff

    def __call__(self, x: Tensor) -> Tensor:
        self.diff = self.diff.to(x.device, x.dtype)
        return F.linear(x, self.diff)


def _hook(adapter: Adapter, multiplier: float) -> _AddLowRank | _AddForward:
    if isinstance(adapter, LowRank):
        return _AddLowRank(adapter, multiplier)
    forward = _FullDifference(adapter.diff) if isinstance(adapter, Difference) else forward_of(adapter)
    return _AddForward(forward, multiplier)
