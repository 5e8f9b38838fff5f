"""How far rounding to 16 bits leads from the exact result, found on the processor.

The reference runs a second time with 16-bit numbers. Its products are computed in fp32 and rounded once, as on a GPU:
a processor's own 16-bit products may take a hundred times longer. So the difference of the two runs follows from the
number format, the network and the numbers, and is the same on any processor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from hv15.memory import Arguments, NamedArguments
from hv15.models.attention import Attention

HALVES = (torch.bfloat16, torch.float16)
_aten = torch.ops.aten
_PRODUCTS = {_aten.mm, _aten.addmm, _aten.addmm_, _aten.bmm, _aten.baddbmm, _aten.baddbmm_} | {
    _aten.convolution,
    _aten.convolution_backward,
}


class RoundedProducts(TorchDispatchMode):
    """Inside, products of 16-bit numbers on the processor are computed in fp32 and rounded once."""

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: Arguments = (),
        kwargs: NamedArguments | None = None,
    ) -> object:
        kwargs = kwargs or {}
        half = next((each.dtype for each in args if isinstance(each, Tensor) and each.dtype in HALVES), None)
        if half is None or func._overloadpacket not in _PRODUCTS:
            return func(*args, **kwargs)
        wide = tree_map_only(Tensor, lambda each: each.float(), args)
        place = kwargs.get("out", args[0] if func._schema.name.endswith("_") else None)
        if place is None:
            return tree_map_only(Tensor, lambda each: each.to(half), func(*wide, **kwargs))
        if "out" in kwargs:
            kwargs = {**kwargs, "out": torch.empty_like(place, dtype=torch.float32)}
        return place.copy_(func(*wide, **kwargs))


def rounded_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention as fused kernels round it: q, k, v [B, N, H, D] -> [B, N, H, D].

    Scores and sums are fp32; the weights, and the gradients of the scores, are rounded before they are multiplied.
    """
    scores = torch.einsum("bnhd,bmhd->bhnm", q.float(), k.float()) / math.sqrt(q.shape[-1])
    if scores.requires_grad:
        scores.register_hook(lambda grad: grad.to(q.dtype).float())
    weights = scores.softmax(-1).to(q.dtype)
    return torch.einsum("bhnm,bmhd->bnhd", weights.float(), v.float()).to(q.dtype)


ROUNDED_ATTENTION = Attention(rounded_attention)
