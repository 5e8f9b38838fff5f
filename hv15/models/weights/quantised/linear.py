"""A frozen linear layer whose weight is stored in a smaller number format: the part that all formats share.

- Forward: y = x @ dequantised(W)^T + b. Backward: grad_x = g @ dequantised(W). The weight is frozen, so nothing is kept
  for the backward pass, neither x nor the dequantised weight, which exists only during a matrix product.
- A weight is encoded a few rows at a time, so that there is never an fp32 copy of a large weight.
- The tensors have exactly the bytes that they need, also on the meta device, so a plan can count them.
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

_CHUNK = 2**20  # elements that are encoded at a time: 4 MiB in fp32; nf4 needs sixteen times that on a CPU
_ROWS = 64  # chunks begin at multiples of this, so that formats can pack and scale across rows


class QuantisedLinear(Module, ABC):
    """A frozen linear layer with a quantised weight; only its input gets a gradient.

    Args:
        bias: whether there is a bias, which is stored in `dtype`.
        device: of the empty tensors, which `quantise_` fills.
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
        """Make the format's empty tensors."""

    @abstractmethod
    def encode(self, weight: Tensor, start: int) -> None:
        """Encode rows of the weight, fp32 [rows, in], into the tensors, beginning at row `start`.

        Raises:
            UserError: the library of this format does not work on this machine.
        """

    @abstractmethod
    def dequantised(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the dequantised weight [out, in], a new tensor."""

    @torch.no_grad()
    def quantise_(self, weight: Tensor, device: torch.device | str | None = None) -> None:
        """Replace the layer's weight by this one [out, in].

        Args:
            weight: of any floating dtype; encoded on its own device.
            device: where the codes are stored; None means the weight's device.

        Raises:
            UserError: the library of this format does not work on this machine.
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
        """Compute the forward pass without autograd: x (..., in) -> (..., out)."""
        return F.linear(x, self.dequantised(x.dtype), self.cast_bias(x.dtype))

    def cast_bias(self, dtype: torch.dtype) -> Tensor | None:
        """Return the bias [out] in another dtype; None if there is none."""
        return None if self.bias is None else self.bias.to(dtype)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantisedLinear:
        """Move to a device like any module, but apply `.to(dtype)` only to the bias: codes must keep their dtype."""

        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype or tensor is self.bias else tensor.to(moved.device)

        return super()._apply(move, recurse)


class ScaledLinear(QuantisedLinear):
    """A weight of 8-bit codes and fp32 scales: W = codes * scale.

    `scale` is [out or 1, blocks], with one scale for each `block` columns of a row; one block covers a whole row.
    """

    code_dtype: ClassVar[torch.dtype]
    scale: Tensor
    block: ClassVar[int | None] = None
    """Number of columns that share a scale; None means all."""

    def allocate(self, device: torch.device | str) -> None:
        shape = (self.out_features, self.in_features)
        self.weight = _frozen(torch.empty(shape, dtype=self.code_dtype, device=device))
        blocks = 1 if self.block is None else -(-self.in_features // self.block)
        self.register_buffer("scale", torch.empty(self.out_features, blocks, dtype=torch.float32, device=device))

    def dequantised(self, dtype: torch.dtype = torch.float32) -> Tensor:
        weight, scale, block = self.weight.detach().to(dtype), self.scale, self.block
        # In place with fp32 scales: computed in fp32, rounded once, and only one tensor of the weight's size.
        if block is None or scale.shape[1] == 1:
            return weight.mul_(scale)
        if self.in_features % block:
            return weight.mul_(scale.repeat_interleave(block, 1)[:, : self.in_features])
        weight.view(self.out_features, -1, block).mul_(scale.unsqueeze(-1))
        return weight


class _Context(FunctionCtx):
    """What the forward pass saves for the backward pass."""

    layer: QuantisedLinear


class _FrozenProduct(torch.autograd.Function):
    """x @ W^T + b with a gradient for x only; both passes dequantise W."""

    @staticmethod
    def forward(ctx: _Context, x: Tensor, layer: QuantisedLinear) -> Tensor:
        # Keeps the layer, not its tensors: block swap may replace them, and saved-tensor hooks must not copy weights.
        ctx.layer = layer
        out = layer.product(x)
        # A LoRA adds to the output in place, which autograd forbids on a view made in a custom function.
        return out if out._base is None else torch.ops.aten._unsafe_view(out, out.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor, None]:
        return grad @ ctx.layer.dequantised(grad.dtype), None


def _frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)
