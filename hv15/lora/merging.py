"""Finished LoRAs inside the weights: on the way from a file into a model, from file to file, or in a model in memory.

The sum is made in fp32 and rounded once, to the weights' own number format, quantised or not. That costs no time in
sampling, but the rounding; a LoRA beside the weights (`apply_lora`) is exact.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hv15.errors import UserError
from hv15.lora.changes import WeightChange, read_changes
from hv15.models.patches import Patch, check_targets
from hv15.models.quantised import QuantisedLinear


def merge_patch(state_dict: Mapping[str, Tensor], multiplier: float = 1.0, *, name: str = "LoRA") -> Patch:
    """What `load_dit` and `merge_dit` take as `merge`: a LoRA of any layout, as `read_lora` gives it.

    Args:
        multiplier: strength on top of alpha/rank; 0 is exactly no LoRA.
        name: for messages: its file.

    Raises:
        UserError: unknown keys or kinds.
    """
    return _LoRAPatch(name, read_changes(state_dict), multiplier)


@torch.no_grad()
def merge_lora(dit: nn.Module, state_dict: Mapping[str, Tensor], multiplier: float = 1.0) -> int:
    """Add a LoRA into the weights of a model in memory, quantised ones too (they are rounded a second time).

    Returns:
        How many linear layers it changes.

    Raises:
        UserError: unknown keys or kinds, modules that this model does not have, wrong sizes, lycoris-lora missing,
            weights cast to fp8 without scales.
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


class _LoRAPatch:
    """The changes of a LoRA, with its strength. Some depend on the weight, so several LoRAs act in their order."""

    def __init__(self, name: str, changes: Mapping[str, WeightChange], multiplier: float) -> None:
        self.name, self.changes, self.multiplier = name, changes, multiplier
        self.shapes = {module: change.shape for module, change in changes.items()}

    def __call__(self, module: str, weight: Tensor) -> Tensor:
        return self.changes[module].merged(weight, self.multiplier) if self.multiplier != 0.0 else weight
