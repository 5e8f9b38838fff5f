"""Weights in 8-bit integers and in 4-bit NormalFloat (Dettmers et al. 2022, 2023), encoded by bitsandbytes.

Products are computed with the dequantised weight, not in 8 bits as `Linear8bitLt` does: that would round activations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hv15.models.weights.quantised.linear import QuantisedLinear, ScaledLinear

NF4_BLOCK = 64


class Int8Linear(ScaledLinear):
    """Weight in int8 with a scale for each row: absmax/127."""

    kind = "int8"
    code_dtype = torch.int8
    block = None

    def encode(self, weight: Tensor, start: int) -> None:
        # On a GPU bitsandbytes reads float16 alone; that is exact enough to choose among 255 steps.
        codes, absmax, _ = _functional().int8_vectorwise_quant(weight.half() if weight.is_cuda else weight)
        stop = start + weight.shape[0]
        self.weight[start:stop] = codes
        self.scale[start:stop] = absmax.unsqueeze(1) / 127


class Nf4Linear(QuantisedLinear):
    """Weight in 4-bit NormalFloat, two codes in a byte, with fp32 scales by 64 consecutive numbers."""

    kind = "nf4"
    absmax: Tensor

    def allocate(self, device: torch.device | str) -> None:
        numbers = self.out_features * self.in_features
        codes = torch.empty((numbers + 1) // 2, 1, dtype=torch.uint8, device=device)
        self.weight = nn.Parameter(codes, requires_grad=False)
        blocks = -(-numbers // NF4_BLOCK)
        self.register_buffer("absmax", torch.empty(blocks, dtype=torch.float32, device=device))

    def encode(self, weight: Tensor, start: int) -> None:
        codes, state = _functional().quantize_4bit(weight, blocksize=NF4_BLOCK, quant_type="nf4")
        byte, block = start * self.in_features // 2, start * self.in_features // NF4_BLOCK
        self.weight[byte : byte + codes.shape[0]] = codes
        self.absmax[block : block + state.absmax.shape[0]] = state.absmax

    def dequantised(self, dtype: torch.dtype = torch.float32) -> Tensor:
        functional = _functional()
        shape = torch.Size((self.out_features, self.in_features))
        state = functional.QuantState(self.absmax, shape=shape, dtype=dtype, blocksize=NF4_BLOCK, quant_type="nf4")
        return functional.dequantize_4bit(self.weight.detach(), state)


def _functional() -> Any:
    """bitsandbytes, imported when it is used: it looks for GPUs and takes a second."""
    import bitsandbytes.functional

    return bitsandbytes.functional
