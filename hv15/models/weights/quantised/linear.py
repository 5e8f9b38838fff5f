"""A frozen linear layer whose weight is held in a smaller number format; what its formats share.

- Forward: y = x @ dequantised(W)^T + b. Backward: grad_x = g @ dequantised(W). The weight is frozen, so nothing is kept
  for the backward pass: neither x nor the dequantised weight, which lives as long as one matrix product.
- A weight is encoded some rows at a time, so that no fp32 copy of a large one exists.
- The tensors hold exactly the bytes they need, on the meta device too: a plan may count them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from hv15.models.weights.module import Module

_CHUNK = 2**20  # elements that are encoded at a time: 4 MiB in fp32; nf4 takes sixteen times that on a CPU
_ROWS = 64  # chunks begin at multiples of it, so that formats may pack and scale across rows


class QuantisedLinear(Module, ABC):
    """A frozen linear layer with a quantised weight; it has no gradient but that of its input.

    Args:
        bias: whether it has one; it is kept in `dtype`.
        device: of the empty tensors; they are filled by `quantise_`.
    """

    kind: ClassVar[str]
    weight: nn.Parameter
    """The codes, in the format's own shape and dtype; no gradient."""
    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: torch.dtype = torch.bfloat16,
        device: torch.device | str = "meta",
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.bias = _frozen(torch.empty(out_features, dtype=dtype, device=device)) if bias else None
        self.allocate(device)

    @abstractmethod
    def allocate(self, device: torch.device | str) -> None:
        """Make empty tensors of the format's exact sizes."""

    @abstractmethod
    def encode(self, weight: Tensor, start: int) -> None:
        """Write some rows of the weight [rows, in] (fp32), which begin at row `start`, into the tensors."""

    @abstractmethod
    def dequantised(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight [out, in] as plain numbers, a new tensor."""

    @torch.no_grad()
    def quantise_(self, weight: Tensor, device: torch.device | str | None = None) -> None:
        """Hold this weight [out, in] from now on.

        Args:
            weight: any floating dtype; it is encoded on the device where it is.
            device: where the codes are kept; None: there too.
        """
        if weight.shape != (self.out_features, self.in_features):
            raise ValueError(f"weight of {list(weight.shape)} for a layer of {[self.out_features, self.in_features]}")
        self.allocate(weight.device if device is None else device)
        if weight.is_meta:  # nothing to encode
            return
        step = max(_ROWS, _CHUNK // self.in_features // _ROWS * _ROWS)
        for start in range(0, self.out_features, step):
            self.encode(weight[start : start + step].float(), start)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out), in the dtype of x."""
        out: Tensor = _FrozenProduct.apply(x, self)
        return out

    def product(self, x: Tensor) -> Tensor:
        """The forward pass without autograd: x (..., in) -> (..., out)."""
        return F.linear(x, self.dequantised(x.dtype), self.cast_bias(x.dtype))

    def cast_bias(self, dtype: torch.dtype) -> Tensor | None:
        """The bias [out] in another dtype; None if there is none."""
        return None if self.bias is None else self.bias.to(dtype)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantisedLinear:
        """Move as any module, but `.to(dtype)` is for the bias alone: codes mean nothing in another dtype."""

        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype or tensor is self.bias else tensor.to(moved.device)

        return super()._apply(move, recurse)


class ScaledLinear(QuantisedLinear):
    """A weight of 8-bit codes and fp32 scales: W = codes * scale.

    `scale` [out or 1, blocks]: one for `block` columns of a row; one block is a scale for a whole row.
    """

    code_dtype: ClassVar[torch.dtype]
    scale: Tensor
    block: ClassVar[int | None] = None
    """Columns that share a scale; None: all of them."""

    def allocate(self, device: torch.device | str) -> None:
        shape = (self.out_features, self.in_features)
        self.weight = _frozen(torch.empty(shape, dtype=self.code_dtype, device=device))
        blocks = 1 if self.block is None else -(-self.in_features // self.block)
        self.register_buffer("scale", torch.empty(self.out_features, blocks, dtype=torch.float32, device=device))

    def dequantised(self, dtype: torch.dtype = torch.float32) -> Tensor:
        weight, scale, block = self.weight.detach().to(dtype), self.scale, self.block
        # In place, and with fp32 scales: computed in fp32, rounded once, and one weight-sized tensor in all.
        if block is None or scale.shape[1] == 1:
            return weight.mul_(scale)
        if self.in_features % block:
            return weight.mul_(scale.repeat_interleave(block, 1)[:, : self.in_features])
        weight.view(self.out_features, -1, block).mul_(scale.unsqueeze(-1))
        return weight


class _Context(FunctionCtx):
    """What the forward pass leaves for the backward pass."""

    layer: QuantisedLinear


class _FrozenProduct(torch.autograd.Function):
    """x @ W^T + b with a gradient for x only; W is made anew in each direction."""

    @staticmethod
    def forward(ctx: _Context, x: Tensor, layer: QuantisedLinear) -> Tensor:
        # The layer, not its tensors: block swap may exchange them, and hooks on saved tensors need not copy weights.
        ctx.layer = layer
        out = layer.product(x)
        # A LoRA adds its share in place, which autograd forbids on a view that was made in here.
        return out if out._base is None else torch.ops.aten._unsafe_view(out, out.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor, None]:
        return grad @ ctx.layer.dequantised(grad.dtype), None


def _frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)
