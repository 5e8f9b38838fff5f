"""How much two right results may differ.

- In 16 bits: `MARGIN` times what rounding changes in the reference itself (`hv15.selftest.rounded`).
- In fp32, which is the reference's own format: a bound from the format alone. A rounding changes a number by at most
  half of its `eps`, and the errors of n roundings are independent of one another, so together they grow with the square
  root of n (Higham and Mary 2019, "A new approach to probabilistic rounding error analysis").

Errors are norms relative to the norm of the right result.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from hv15.choices import WeightFormat
from hv15.models.weights.quantised.fp8 import E4M3_MAX
from hv15.models.weights.quantised.integers import NF4
from hv15.records.selftest import Measured
from hv15.selftest.rounded import HALVES

MARGIN = 2.0
"""A device may round at other places than the reference, such as partial sums of a product: up to four times as often,
and the errors of independent roundings grow with the square root of their number."""
LONGEST_SUM = 4096
"""Terms of the sums in between, at most."""
BLOCK_ROUNDINGS = 26
"""Results that a transformer block rounds one after the other: norms, modulation, products, rotation, attention, gates,
with the LoRA."""
AROUND_BLOCKS = 12
"""The same before the first block and behind the last one."""
BACKWARD = 3
"""A gradient passes through all of it twice more, and each product of the backward pass has one more factor."""
E4M3 = 2**-4
"""Half the distance of neighbouring fp8 numbers, relative to the smaller one: three bits after the point."""


def bound(dtype: torch.dtype, spread: float | None, roundings: int) -> float | None:
    """The largest difference of a right result in `dtype` from the exact one; None if nothing is compared.

    Args:
        spread: the difference between the reference in `dtype` and in fp32; for 16 bits.
        roundings: results that are rounded one after the other; for fp32.
    """
    if dtype in HALVES:
        return None if spread is None else MARGIN * spread
    return math.sqrt(roundings) * (1 + math.sqrt(LONGEST_SUM)) * torch.finfo(torch.float32).eps / 2


def doubled(most: float | None) -> float | None:
    """The bound of the difference of two results that are both rounded, from that of one of them."""
    return None if most is None else math.sqrt(2) * most


def transformer_roundings(blocks: int, *, backward: bool = False) -> int:
    """Results of a transformer, or of its gradients, that are rounded one after the other."""
    roundings = BLOCK_ROUNDINGS * blocks + AROUND_BLOCKS
    return roundings * BACKWARD if backward else roundings


def judged(pairs: Iterable[tuple[float | None, float | None]]) -> Measured:
    """Of errors and their bounds, the pair that is nearest to wrong; nothing where nothing is compared."""
    worst, highest = Measured(), -1.0
    for error, most in pairs:
        if error is None or most is None:
            continue
        share = error / max(most, 1e-300)
        if not (share <= highest or math.isnan(highest)):  # a NaN is the worst
            worst, highest = Measured(error=error, bound=most), share
    return worst


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
