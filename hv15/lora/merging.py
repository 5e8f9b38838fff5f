"""Finished LoRAs inside the weights: on the way from a file into a model, from file to file, or in a model in memory.

The sum is made in fp32 and rounded once, to the weights' own number format, quantised or not. That costs no time in
sampling, but the rounding; a LoRA beside the weights (`apply_lora`) is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hv15.errors import UserError
from hv15.lora.adapters import Adapter
from hv15.lora.formats import arrange, read_parts
from hv15.lora.lycoris import merged_weight, modules_of, needs_lycoris
from hv15.models.patches import Patch, check_targets
from hv15.models.quantised import QuantisedLinear


def merge_patch(state_dict: Mapping[str, Tensor], multiplier: float = 1.0, *, name: str = "LoRA") -> Patch:
    """What `load_dit` and `merge_dit` take as `merge`: a LoRA of any layout, as `read_lora` gives it.

    Args:
        multiplier: strength on top of alpha/rank.
        name: for messages: its file.

    Raises:
        UserError: unknown keys.
    """
    if needs_lycoris(state_dict):
        return _LycorisPatch(name, state_dict, multiplier)
    return _AdapterPatch(name, arrange(read_parts(state_dict), "official"), multiplier)


@torch.no_grad()
def merge_lora(dit: nn.Module, state_dict: Mapping[str, Tensor], multiplier: float = 1.0) -> int:
    """Add a LoRA into the weights of a model in memory, quantised ones too (they are rounded a second time).

    Returns:
        How many linear layers it changes.

    Raises:
        UserError: unknown keys, modules that this model does not have, wrong sizes, weights cast to fp8 without scales.
    """
    patch = merge_patch(state_dict, multiplier)
    layers = check_targets(dit, patch.shapes)
    for layer in layers.values():
        if not isinstance(layer, QuantisedLinear) and layer.weight.dtype.itemsize < 2:
            raise UserError(
                f"LoRA: cannot be merged into a {type(layer).__name__} layer of {layer.weight.dtype}",
                hint="merge into the bf16 checkpoint, or use the LoRA unmerged",
            )
    for name, layer in layers.items():
        if isinstance(layer, QuantisedLinear):
            layer.quantise_(patch(name, layer.dequantised()))
        else:
            layer.weight.copy_(patch(name, layer.weight.float()))
    return len(layers)


class _AdapterPatch:
    """A LoRA, LoHa, LoKr or full difference: adds what it is, whatever the weight."""

    def __init__(self, name: str, adapters: Mapping[str, Adapter], multiplier: float) -> None:
        self.name, self.adapters, self.multiplier = name, adapters, multiplier
        self.shapes = {module: adapter.shape for module, adapter in adapters.items()}

    def __call__(self, module: str, weight: Tensor) -> Tensor:
        delta = self.adapters[module].delta().to(weight.device)
        return torch.add(weight, delta, alpha=self.multiplier)


class _LycorisPatch:
    """What only LyCORIS knows, such as DoRA and OFT: depends on the weight, so several act in their order."""

    def __init__(self, name: str, state_dict: Mapping[str, Tensor], multiplier: float) -> None:
        self.name, self.multiplier = name, multiplier
        self.tensors = modules_of(state_dict)
        self.shapes: dict[str, Any] = dict.fromkeys(self.tensors)

    def __call__(self, module: str, weight: Tensor) -> Tensor:
        return merged_weight(module, weight, self.tensors[module], self.multiplier)
