"""Weights in 8-bit integers and in 4-bit NormalFloat (Dettmers et al. 2022, 2023), encoded by bitsandbytes.

Products use the dequantised weight. Unlike `Linear8bitLt`, they are not computed in 8 bits, which would round the
activations.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import version

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hv15.bitsandbytes import bitsandbytes
from hv15.errors import UserError
from hv15.models.weights.quantised.linear import QuantisedLinear, ScaledLinear

NF4_BLOCK = 64
# The sixteen numbers of NormalFloat (QLoRA, appendix E); a code is an index into this list.
NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)


class Int8Linear(ScaledLinear):
    """Weight in int8 with a scale for each row: absmax/127."""

    kind = "int8"
    code_dtype = torch.int8
    block = None

    def encode(self, weight: Tensor, start: int) -> None:
        # On a GPU bitsandbytes supports only float16, which is accurate enough to choose among 255 steps.
        quantised = bitsandbytes("functional").int8_vectorwise_quant(weight.half() if weight.is_cuda else weight)
        codes, absmax, _ = quantised
        stop = start + weight.shape[0]
        self.weight[start:stop] = codes
        self.scale[start:stop] = absmax.unsqueeze(1) / 127


class Nf4Linear(QuantisedLinear):
    """Weight in 4-bit NormalFloat, two codes in a byte, with an fp32 scale for each block of 64 consecutive numbers.

    The last block is padded with zeros.
    """

    kind = "nf4"
    absmax: Tensor

    def allocate(self, device: torch.device | str) -> None:
        bitsandbytes("functional")  # imported before `dequantised` is compiled: the compiler cannot trace this import
        blocks = -(-self.out_features * self.in_features // NF4_BLOCK)
        codes = torch.empty(blocks * NF4_BLOCK // 2, 1, dtype=torch.uint8, device=device)
        self.weight = nn.Parameter(codes, requires_grad=False)
        self.register_buffer("absmax", torch.empty(blocks, dtype=torch.float32, device=device))

    def encode(self, weight: Tensor, start: int) -> None:
        check_nf4(weight.device)
        codes, absmax = nf4_codes(weight)
        block = start * self.in_features // NF4_BLOCK
        byte = block * NF4_BLOCK // 2
        self.weight[byte : byte + codes.shape[0]] = codes
        self.absmax[block : block + absmax.shape[0]] = absmax

    def dequantised(self, dtype: torch.dtype = torch.float32) -> Tensor:
        numbers = nf4_numbers(self.weight.detach(), self.absmax, dtype)
        return numbers[: self.out_features * self.in_features].view(self.out_features, self.in_features)


def nf4_codes(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Encode fp32 numbers of any shape: return codes [blocks * 32, 1], two in a byte, and scales [blocks]."""
    blocks = F.pad(weight.flatten(), (0, -weight.numel() % NF4_BLOCK)).view(-1, NF4_BLOCK)
    codes, state = bitsandbytes("functional").quantize_4bit(blocks, blocksize=NF4_BLOCK, quant_type="nf4")
    return codes, state.absmax


def nf4_numbers(codes: Tensor, absmax: Tensor, dtype: torch.dtype) -> Tensor:
    """Decode codes [blocks * 32, 1] and scales [blocks] into numbers [blocks * 64].

    bitsandbytes gets one block in each row regardless of the weight's shape, because on a CPU version 0.50.2 uses wrong
    scales if a row is not a whole number of blocks.
    """
    import bitsandbytes.functional as functional

    shape = torch.Size((absmax.shape[0], NF4_BLOCK))
    state = functional.QuantState(absmax, shape=shape, dtype=dtype, blocksize=NF4_BLOCK, quant_type="nf4")
    return functional.dequantize_4bit(codes, state).flatten()


@cache
def check_nf4(device: torch.device) -> None:
    """Check, once for each device, that bitsandbytes encodes and decodes numbers which nf4 represents exactly.

    Raises:
        UserError: the decoded numbers differ.
    """
    if device.type == "meta":
        return
    number = torch.arange(NF4_BLOCK * NF4_BLOCK).view(-1, NF4_BLOCK)
    scale = 1.37 * 2.0 ** (number[:, :1] % 7 - 3)
    plain = torch.tensor(NF4)[(7 * number + number[:, :1]) % len(NF4)] * scale
    codes, absmax = nf4_codes(plain.to(device))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        found = nf4_numbers(codes, absmax, dtype).cpu().view_as(plain)
        wanted = plain.to(dtype)
        if not torch.allclose(found, wanted, rtol=torch.finfo(dtype).eps, atol=0):
            off = (found.float() - wanted.float()).abs().max()
            raise UserError(
                f"bitsandbytes {version('bitsandbytes')}: its nf4 arithmetic is wrong on this machine "
                f"({device.type}, {str(dtype).removeprefix('torch.')}: off by {off:.3g} of {scale.max():.3g})",
                hint="install another version of bitsandbytes, or set quantize: fp8",
            )
