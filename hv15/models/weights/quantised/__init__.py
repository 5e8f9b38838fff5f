"""Frozen linear layers in 8 and 4 bits (fp8, int8, nf4), which replace `nn.Linear` when a LoRA is trained or applied.

The model decides which layers are quantised; each format's module defines how its numbers are stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import torch
from torch import Tensor, nn

from hv15.choices import WeightFormat
from hv15.errors import UserError
from hv15.models.weights.quantised.fp8 import FastFp8Linear, Fp8Linear, ScaledCodes, check_fp8_product
from hv15.models.weights.quantised.integers import Int8Linear, Nf4Linear
from hv15.models.weights.quantised.linear import QuantisedLinear

__all__ = [
    "FastFp8Linear",
    "Fp8Linear",
    "Int8Linear",
    "Nf4Linear",
    "QuantisedLinear",
    "ScaledCodes",
    "check_weight_format",
    "plain_shapes",
    "plain_weight",
    "quantise",
    "replace_linears",
]

_LAYERS: dict[WeightFormat, type[QuantisedLinear]] = {
    "fp8": Fp8Linear,
    "fp8_fast": FastFp8Linear,
    "int8": Int8Linear,
    "nf4": Nf4Linear,
}


def quantise(
    weight: Tensor, bias: Tensor | None, kind: WeightFormat, dtype: torch.dtype | None = None
) -> QuantisedLinear:
    """Make a quantised layer of this weight [out, in] and bias [out], on the weight's device.

    Args:
        dtype: of the bias; None keeps it unchanged.
    """
    out_features, in_features = weight.shape
    dtype = dtype or (weight if bias is None else bias).dtype
    layer = _LAYERS[kind](in_features, out_features, bias is not None, dtype=dtype)
    layer.quantise_(weight)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().to(weight.device, dtype), requires_grad=False)
    return layer


def replace_linears(module: nn.Module, kind: WeightFormat, chosen: Callable[[str], bool]) -> list[str]:
    """Replace linear layers by empty quantised ones on the same device, which are filled later.

    Args:
        chosen: whether to replace the linear layer of this name.

    Returns:
        The names of the replaced layers.
    """
    linears = {name: layer for name, layer in module.named_modules() if type(layer) is nn.Linear and chosen(name)}
    for name, linear in linears.items():
        owner_name, _, attribute = name.rpartition(".")
        empty = _LAYERS[kind](
            linear.in_features,
            linear.out_features,
            linear.bias is not None,
            dtype=linear.weight.dtype,
            device=linear.weight.device,
        )
        setattr(module.get_submodule(owner_name), attribute, empty)
    return list(linears)


def plain_weight(layer: nn.Linear | QuantisedLinear) -> Tensor:
    """Return a layer's weight (out, in) in fp32: dequantised if it is quantised, gathered if ranks have shares."""
    if isinstance(layer, QuantisedLinear):
        return layer.dequantised()
    weight = layer.weight.detach()
    gather: Callable[[], Tensor] | None = getattr(weight, "full_tensor", None)  # its class takes long to import
    return (weight if gather is None else gather()).float()


def plain_shapes(module: nn.Module) -> dict[str, torch.Size]:
    """Return the names and shapes that a module's state dict would have without quantisation."""
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, QuantisedLinear)}
    shapes = {}
    for key, tensor in module.state_dict(keep_vars=True).items():
        owner, _, name = key.rpartition(".")
        layer = layers.get(owner)
        if layer is None or name == "bias":
            shapes[key] = tensor.shape
        elif name == "weight":
            shapes[key] = torch.Size((layer.out_features, layer.in_features))
    return shapes


def check_weight_format(kind: str, device: torch.device | str) -> None:
    """Raise UserError if the number format is unknown, or the device cannot compute with it."""
    if kind not in get_args(WeightFormat):
        raise UserError(f"quantize: unknown format {kind}", hint=f"use one of {', '.join(get_args(WeightFormat))}")
    if kind == "fp8_fast":
        check_fp8_product(torch.device(device))
