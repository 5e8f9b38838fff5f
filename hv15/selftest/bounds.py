"""How much two right results may differ: bounds from the number formats alone.

A rounding changes a number by at most half the format's `eps`. The errors of n roundings are independent of one
another, so together they grow with the square root of n (Higham and Mary 2019, "A new approach to probabilistic
rounding error analysis"). Sums are in fp32 in every kernel. Errors are norms relative to the norm of the result.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hv15.choices import WeightFormat
from hv15.models.weights.quantised.fp8 import E4M3_MAX
from hv15.models.weights.quantised.integers import NF4

BLOCK_ROUNDINGS = 26
"""Results that a transformer block rounds one after the other: norms, modulation, products, rotation, attention, gates,
with the LoRA."""
AROUND_BLOCKS = 12
"""The same before the first block and behind the last one."""
BACKWARD = 3
"""A gradient passes through all of it twice more, and each product of the backward pass has one more factor."""
E4M3 = 2**-4
"""Half the distance of neighbouring fp8 numbers, relative to the smaller one: three bits after the point."""


def rounding_bound(dtype: torch.dtype, roundings: int, *, longest_sum: int = 4096) -> float:
    """The difference between a result in `dtype` and the exact one.

    Args:
        roundings: results that are rounded to `dtype` one after the other.
        longest_sum: terms of the sums in between, which are rounded to fp32.
    """
    unit, sum_unit = torch.finfo(dtype).eps / 2, torch.finfo(torch.float32).eps / 2
    return math.sqrt(roundings) * unit + math.sqrt(roundings * longest_sum) * sum_unit


def transformer_bound(dtype: torch.dtype, blocks: int, *, backward: bool = False) -> float:
    """The difference between a transformer's result, or its gradients, and the exact ones."""
    roundings = BLOCK_ROUNDINGS * blocks + AROUND_BLOCKS
    return rounding_bound(dtype, roundings * BACKWARD if backward else roundings)


def nearest(kind: WeightFormat, weight: Tensor) -> Tensor:
    """The numbers of a format that are nearest to a weight [out, in], fp32: each format by its definition."""
    weight = weight.float()
    if kind == "int8":
        step = weight.abs().amax(-1, keepdim=True) / 127
        return (weight / step).round() * step
    blocks = weight if kind == "fp8_fast" else weight.view(-1, 64)
    largest = blocks.abs().amax(-1, keepdim=True)
    if kind == "nf4":
        numbers = torch.tensor(NF4)
        closest = ((blocks / largest).unsqueeze(-1) - numbers).abs().argmin(-1)
        return (numbers[closest] * largest).view_as(weight)
    step = largest / E4M3_MAX
    return ((blocks / step).to(torch.float8_e4m3fn).float() * step).view_as(weight)
