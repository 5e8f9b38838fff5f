"""The numbers of single layers: attention with each kernel, and linear layers with weights of each number format."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from hv15.choices import WeightFormat
from hv15.errors import UserError
from hv15.models.attention import PACKAGES, Attention, pick_attention
from hv15.models.fused_attention import fused_attention
from hv15.models.weights.quantised import QuantisedLinear, check_weight_format, quantise
from hv15.records.selftest import Measured
from hv15.selftest.bounds import E4M3, MARGIN, bound, judged, nearest
from hv15.selftest.checks import MachineCheck
from hv15.selftest.rounded import ROUNDED_ATTENTION, RoundedProducts
from hv15.selftest.stand import Skipped, Stand

ATTENTION_ROUNDINGS, PRODUCT_ROUNDINGS = 6, 4
"""Of attention or of a layer, forward or backward: results that are rounded one after the other."""
FORMATS: dict[WeightFormat, tuple[str, ...]] = {
    "fp8": (),
    "fp8_fast": (),
    "int8": ("bitsandbytes",),
    "nf4": ("bitsandbytes",),
}
"""Number formats of weights, and the packages that they need."""


def attention_checks(stand: Stand) -> list[MachineCheck]:
    """A check for each kernel."""
    return [
        MachineCheck("numbers", f"attention: {mode}", partial(attention, stand, mode), 1, needs=_package(mode))
        for mode in ("sdpa", *PACKAGES)
    ]


def weight_checks(stand: Stand) -> list[MachineCheck]:
    """Checks for each number format of weights."""
    return [
        MachineCheck("numbers", f"quantize: {kind}: {what}", partial(run, stand, kind), 1, needs=packages)
        for what, run in (("the format", weight_format), ("products", quantised_products))
        for kind, packages in FORMATS.items()
    ]


def _package(mode: str) -> tuple[str, ...]:
    return (PACKAGES[mode].module.partition(".")[0],) if mode in PACKAGES else ()


def attention(stand: Stand, mode: str) -> Measured:
    """Output and, if the kernel trains, gradients against the definition in fp32 on the CPU.

    Of samples of one length, and of two, for which some packages have a kernel of their own.
    """
    trains = mode != "sage"
    try:
        kernel = pick_attention(mode, split=False, device=stand.device, dtype=stand.dtype, training=trains)
    except UserError as error:
        raise Skipped(error.message) from None
    definition = Attention(lambda q, k, v: fused_attention(q, k, v)[0])
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(2, 500, 2, 128, generator=generator).to(stand.dtype) for _ in range(4)]
    pairs: list[tuple[float | None, float | None]] = []
    for lengths in ([500, 500], [500, 317]):
        expected = _passes(partial(definition, lengths=lengths), [each.float() for each in given], trains)
        rounded = _passes(partial(ROUNDED_ATTENTION, lengths=lengths), given, trains)
        found = _passes(partial(kernel, lengths=lengths), [each.to(stand.device) for each in given], trains)
        for wanted, near, each in zip(expected, rounded, found, strict=True):
            most = bound(stand.dtype, stand.error(near, wanted), ATTENTION_ROUNDINGS) if trains else E4M3
            pairs.append((stand.error(each, wanted), most))  # sage multiplies in 8 bits
    return judged(pairs)


def _passes(attend: Callable[..., Tensor], given: list[Tensor], trains: bool) -> list[Tensor]:
    """The output [B, N, H * D], and the gradients of q, k and v; what is given is [B, N, H, D]."""
    *qkv, upstream = given
    if not trains:
        with torch.no_grad():
            return [attend(*qkv)]
    leaves = [each.detach().requires_grad_() for each in qkv]
    out = attend(*leaves)
    return [out, *torch.autograd.grad(out, leaves, upstream.flatten(2))]


def _layer(stand: Stand, kind: WeightFormat) -> tuple[QuantisedLinear, Tensor]:
    """A quantised layer on the device, and the weight [out, in] that it was made from, on the CPU."""
    try:
        check_weight_format(kind, stand.device)
    except UserError as error:
        raise Skipped(error.message) from None
    weight = torch.randn(512, 256, generator=torch.Generator().manual_seed(0)).to(stand.dtype)
    bias = torch.zeros(512, device=stand.device, dtype=stand.dtype)
    return quantise(weight.to(stand.device), bias, kind), weight


def weight_format(stand: Stand, kind: WeightFormat) -> Measured:
    """The quantised weight against the one that it was made from: as near as the format's numbers are."""
    layer, weight = _layer(stand, kind)
    if not stand.has_data:
        return Measured()
    smallest = stand.error(nearest(kind, weight), weight)
    return Measured(error=stand.error(layer.dequantised(), weight), bound=None if smallest is None else 1.01 * smallest)


def quantised_products(stand: Stand, kind: WeightFormat) -> Measured:
    """Output and gradient of a layer against exact products with the weight that its codes stand for."""
    layer, _ = _layer(stand, kind)
    generator = torch.Generator().manual_seed(1)
    x, upstream = (torch.randn(64, size, generator=generator).to(stand.dtype) for size in (256, 512))
    leaf = x.to(stand.device).requires_grad_()
    out = layer(leaf)
    (gradient,) = torch.autograd.grad(out, leaf, upstream.to(stand.device))
    if not stand.has_data:
        return Measured()
    weight = layer.dequantised().cpu()
    read = nearest(kind, x) if kind == "fp8_fast" else x  # it also rounds the activations to fp8
    cases = (
        (out, x.double() @ weight.double().t(), read.to(stand.dtype), weight.t()),
        (gradient, upstream.double() @ weight.double(), upstream, weight),
    )
    pairs = []
    for found, exact, left, right in cases:
        with RoundedProducts():
            spread = stand.error(left @ right.to(stand.dtype), exact)
        in_fp8 = kind == "fp8_fast" and left is read
        most = MARGIN * (spread or 0) if in_fp8 else bound(stand.dtype, spread, PRODUCT_ROUNDINGS)
        pairs.append((stand.error(found, exact), most))
    return judged(pairs)
