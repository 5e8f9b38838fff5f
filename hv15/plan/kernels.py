"""Stand-ins for the device where tensors have no data: fused attention, a check for NaN, and numbers that code reads.

Planning would otherwise follow torch's unfused path, which holds every score, while a GPU (and a CPU) uses a kernel
that holds none. The transformer's attention has a stand-in of its own (`hv15.models.fused_attention`); the VAE and
transformers' encoders call torch's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hv15.memory import Arguments, NamedArguments
from hv15.models.fused_attention import fused_attention
from hv15.models.weights.no_data import has_no_data


class WithoutData(TorchFunctionMode):
    """While active, scaled_dot_product_attention on tensors without data needs what a fused kernel needs, a check for
    NaN finds none, and code that reads a number, such as an optimizer that finds its own rate, reads 1 or true."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Arguments = (),
        kwargs: NamedArguments | None = None,
    ) -> object:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and has_no_data(args[0] if args else kwargs["query"]):
            return _fused(*args, **kwargs)
        if func is torch.isfinite and has_no_data(args[0]):
            func(*args)  # its result takes memory for a moment
            return torch.ones((), dtype=torch.bool, device="cpu")
        if func in _READING and has_no_data(args[0]):
            return _READING[func]
        return func(*args, **kwargs)


_READING: dict[object, object] = {torch.Tensor.item: 1.0, torch.Tensor.__float__: 1.0, torch.Tensor.__bool__: True}
"""How a host reads a tensor, and what it reads where there is no data."""


def _fused(query: Tensor, key: Tensor, value: Tensor, *_: object, **__: object) -> Tensor:
    """A mask, causality and grouped query heads change no sizes and hardly any work."""
    out: Tensor
    out, _logsumexp = fused_attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
    return out.transpose(1, 2)
