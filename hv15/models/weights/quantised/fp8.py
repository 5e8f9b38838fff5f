"""8-bit floating point weights (e4m3: 4 bits of exponent, 3 of mantissa, largest number 448), scaled.

- `Fp8Linear`: a scale for each 64 columns of each row, absmax/448. Other programs' files have one scale for a tensor
  or for a row, which is kept.
- `FastFp8Linear`: also computes the product in fp8 (`torch._scaled_mm`), for devices with fp8 units. It is only used
  when asked for, because it rounds the activations to fp8 as well: with two roundings of equal size instead of one, the
  error of a layer's output grows by about the square root of two. Such a product does not support a scale for each 64
  columns, so each row has one scale. That costs almost no accuracy, because the precision of e4m3 is relative.
  Gradients are computed as in `Fp8Linear`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hv15.errors import UserError
from hv15.models.weights.quantised.linear import ScaledLinear

E4M3_MAX = 448.0


@dataclass(frozen=True)
class ScaledCodes:
    """An fp8 weight as it is in files: codes [out, in] (float8 of either kind), scale [out or 1, 1]."""

    codes: Tensor
    scale: Tensor

    @property
    def shape(self) -> torch.Size:
        return self.codes.shape

    def to(self, device: torch.device | str) -> ScaledCodes:
        """Return the same weight [out, in] on another device."""
        return ScaledCodes(self.codes.to(device), self.scale.to(device))

    def dequantised(self, dtype: torch.dtype) -> Tensor:
        """Return the unquantised weight [out, in], computed in fp32 and rounded once."""
        return self.codes.to(dtype).mul_(self.scale)


class Fp8Linear(ScaledLinear):
    """Weight in float8_e4m3fn with fp32 scales by blocks of 64 along the input."""

    kind = "fp8"
    code_dtype = torch.float8_e4m3fn
    block: ClassVar[int | None] = 64

    def encode(self, weight: Tensor, start: int) -> None:
        codes, scale = scaled_codes(weight, self.block or self.in_features)
        stop = start + weight.shape[0]
        self.weight[start:stop] = codes
        self.scale[start:stop] = scale

    @torch.no_grad()
    def take(self, weight: ScaledCodes, device: torch.device | str) -> None:
        """Use a weight [out, in] that is already fp8, unchanged."""
        self.weight = nn.Parameter(weight.codes.to(device), requires_grad=False)
        self.scale = weight.scale.to(device, torch.float32)


class FastFp8Linear(Fp8Linear):
    """As `Fp8Linear`, but with a scale for each row and the product in fp8; activations have a scale for each token."""

    kind = "fp8_fast"
    block = None

    def product(self, x: Tensor) -> Tensor:
        return scaled_product(x, self.weight, self.scale, self.cast_bias(x.dtype))


def scaled_codes(values: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Encode fp32 values [rows, columns] in e4m3; return the codes and scales [rows, blocks] = absmax / 448.

    Zeros stay zeros.
    """
    rows, columns = values.shape
    missing = -columns % block
    blocks = F.pad(values, (0, missing)).view(rows, -1, block)  # (rows, blocks, block)
    scale = blocks.abs().amax(-1).div_(E4M3_MAX).clamp_(min=torch.finfo(torch.float32).tiny)
    codes = (blocks / scale.unsqueeze(-1)).clamp_(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)
    return codes.view(rows, -1)[:, :columns], scale


def scaled_product(x: Tensor, codes: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """Compute x (..., in) @ (codes * scale)^T + bias with both factors in fp8, summed in fp32; in the dtype of x.

    The scales of tokens and rows are multiplied into the product's output in place; its own scale keeps the sums within
    the range of float16.

    Args:
        codes: float8 [out, in].
        scale: [out, 1].
        bias: [out].

    Returns:
        (..., out).
    """
    tokens = x.reshape(-1, x.shape[-1])  # (tokens, in)
    absmax = tokens.abs().amax(-1, keepdim=True).float().clamp_(min=torch.finfo(torch.float32).tiny * E4M3_MAX)
    tokens = (tokens * (E4M3_MAX / absmax)).clamp_(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)
    product = codes_product(tokens, codes, x.dtype)  # (tokens, out)
    product.mul_(absmax).mul_(scale.t() * E4M3_MAX)
    if bias is not None:
        product.add_(bias)
    return product.unflatten(0, x.shape[:-1])


def codes_product(tokens: Tensor, codes: Tensor, dtype: torch.dtype) -> Tensor:
    """Compute tokens (tokens, in) @ codes (out, in)^T / 448^2 of e4m3 numbers: (tokens, out) in `dtype`.

    The tensor-wise form of `torch._scaled_mm` runs on every device with fp8 units. On a processor it depends on the
    instructions that oneDNN finds, and fails with some of them; there, fp32 numbers of the same values are multiplied.
    """
    unit = 1 / E4M3_MAX
    if tokens.device.type == "cpu":
        return (tokens.float() @ codes.float().t()).mul_(unit * unit).to(dtype)
    scale = torch.full((), unit, dtype=torch.float32, device=tokens.device)
    return torch._scaled_mm(tokens, codes.t(), scale_a=scale, scale_b=scale, out_dtype=dtype)


def check_fp8_product(device: torch.device) -> None:
    """Raise UserError if the GPU cannot multiply fp8 numbers, that is, if it is older than Ada and Hopper."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 9):
        name = torch.cuda.get_device_name(device)
        raise UserError(f"quantize: fp8_fast: {name} cannot multiply fp8 numbers", hint="use quantize: fp8")
