"""Frozen linear layers together with their low-rank branches (LoRA), as one operation with a backward pass of its own.

- Layers with the same input (q, k, v) share it: their branches' downs are one product, and the gradient of the input is
  summed where it is made.
- Nothing of a layer is kept for the backward pass, neither weights nor outputs; a branch keeps its input and its
  hidden states.
- Branches are forward hooks, so a layer that is called as a module computes the same. Other hooks, dropout, layers that
  learn and compiled code are computed in that way.
- Large products of fp32 on a CPU are oneDNN's: on processors of AMD they are a quarter faster than torch's default.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from hv15.models import pass_kernels as kernels
from hv15.models.passes import gated_sum, gelu
from hv15.models.weights.quantised.linear import QuantisedLinear

Linear = nn.Linear | QuantisedLinear
LARGE_PRODUCT = 2**28
"""Multiplications from which oneDNN's product is used; smaller ones take it longer to prepare."""


class LowRankHook(ABC):
    """A low-rank branch as a forward hook of its layer: adds up(down(x)) * scale to the layer's output."""

    scale: float

    @abstractmethod
    def __call__(self, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Add the branch's output for x (..., in) to the layer's output (..., out), in place."""

    @property
    @abstractmethod
    def learned(self) -> tuple[Tensor, Tensor]:
        """The matrices that get the gradients: down (rank, in), up (out, rank)."""

    @abstractmethod
    def factors(self, like: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return down and up on the device and in the dtype of a tensor of any shape; None to have the hook called."""


class _Factors(NamedTuple):
    """The matrices of a branch, ready to compute with."""

    layer: int
    """Index of the layer that it belongs to."""
    down: Tensor
    up: Tensor
    scale: float


class _Call(NamedTuple):
    """Layers with the same input, and their branches."""

    layers: Sequence[Linear]
    branches: list[_Factors]
    gelu: bool = False
    """Whether GELU follows, which is for a single layer."""

    @property
    def one_pass(self) -> bool:
        """Whether the branch is added in the pass that computes GELU."""
        return self.gelu and len(self.branches) == 1 and kernels.takes_low_rank(self.branches[0].down, self.ranks[0][1])

    @property
    def ranks(self) -> list[tuple[int, int]]:
        """Begin and end of each branch's columns in the joint hidden states."""
        return list(pairwise(accumulate((each.down.shape[0] for each in self.branches), initial=0)))


def linears(layers: Sequence[Linear], x: Tensor, out: Sequence[Tensor | None] | None = None) -> list[Tensor]:
    """Compute linear layers with the same input, and the branches on them.

    Args:
        x: (..., in).
        out: without gradients, where to write each layer's output (..., out); None makes a new tensor.

    Returns:
        Each layer's output (..., out).
    """
    out = out or [None] * len(layers)
    call, learned = _call_of(layers, x)
    if call is None:
        return [_placed(layer(x), place) for layer, place in zip(layers, out, strict=True)]
    if not torch.is_grad_enabled():
        return _forward(call, x, out)[0]
    outputs: tuple[Tensor, ...] = _Frozen.apply(call, x, *learned)
    return list(outputs)


def linear(layer: Linear, x: Tensor) -> Tensor:
    """Compute a linear layer and the branches on it: x (..., in) -> (..., out)."""
    return linears((layer,), x)[0]


def linear_gelu(layer: Linear, x: Tensor) -> Tensor:
    """Compute a linear layer, the branches on it, and GELU in its tanh form: x (..., in) -> (..., out)."""
    call, learned = _call_of((layer,), x)
    if call is None:
        return gelu(layer(x))
    call = call._replace(gelu=True)
    if not torch.is_grad_enabled():
        return _forward(call, x, [None])[0][0]
    (output,) = _Frozen.apply(call, x, *learned)
    return output


def gated_linear(x: Tensor, gate: Tensor, layer: Linear, inner: Tensor, out: Tensor | None = None) -> Tensor:
    """Return x + gate * layer(inner), with the branches on the layer.

    Args:
        x: [B, N, hidden].
        gate: [B, 1, hidden].
        inner: [B, N, in].
        out: without gradients, where to write the result.
    """
    if not torch.is_grad_enabled():
        call, _ = _call_of((layer,), inner)
        if call is not None and len(call.branches) == 1 and kernels.takes_low_rank(x, call.ranks[0][1]):
            branch, rows = call.branches[0], _rows(inner)
            y, hidden = product(layer, rows), F.linear(rows, branch.down)
            out = y.view(x.shape) if out is None else out
            kernels.gated_low_rank(x, gate, y, hidden, branch.up, branch.scale, out)
            return out
    return gated_sum(x, gate, linear(layer, inner), out)


def _call_of(layers: Sequence[Linear], x: Tensor) -> tuple[_Call | None, list[Tensor]]:
    """Return the layers with their branches, and the matrices that learn; None if the layers must be called instead."""
    hooks = None if torch.compiler.is_compiling() else _hooks_of(layers)
    if hooks is None:
        return None, []
    branches: list[_Factors] = []
    for index, hook in hooks:
        factors = hook.factors(x)
        if factors is None:
            return None, []
        branches.append(_Factors(index, *factors, hook.scale))
    return _Call(layers, branches), [matrix for _, hook in hooks for matrix in hook.learned]


def _hooks_of(layers: Sequence[Linear]) -> list[tuple[int, LowRankHook]] | None:
    """Return the branches of each layer; None if a layer learns or was changed, so that it must be called."""
    found: list[tuple[int, LowRankHook]] = []
    for index, layer in enumerate(layers):
        if type(layer) is not nn.Linear and not isinstance(layer, QuantisedLinear):
            return None
        if "forward" in layer.__dict__:  # other programs' adapters replace it, and some take the weight
            return None
        if layer._forward_pre_hooks or layer._backward_hooks or layer.weight.requires_grad:
            return None
        for hook in layer._forward_hooks.values():
            if not isinstance(hook, LowRankHook):
                return None
            found.append((index, hook))
    return found


class _Context(FunctionCtx):
    """What the forward pass saves for the backward pass."""

    call: _Call
    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]


class _Frozen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, call: _Call, x: Tensor, *_learned: Tensor) -> tuple[Tensor, ...]:
        # Keeps the layers, not their tensors: block swap may replace them, and saved-tensor hooks would copy weights.
        ctx.call = call
        ctx.set_materialize_grads(False)
        outputs, hidden, kept = _forward(call, x, [None] * len(call.layers), keeps=True)
        ctx.save_for_backward(*([x, hidden] if hidden is not None else []), *([kept] if kept is not None else []))
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        call, needed, saved = ctx.call, ctx.needs_input_grad, ctx.saved_tensors
        rows = [None if grad is None else _rows(grad) for grad in grads]
        if call.gelu and rows[0] is not None:
            rows[0] = _gelu_backward(call, rows[0], *saved[-2:])
        d_x = _input_gradient(call.layers, rows) if needed[1] else None
        d_learned: list[Tensor | None] = []
        if call.branches:
            x, hidden = saved[:2]
            d_learned = _branch_gradients(call, _rows(x), hidden, rows, d_x, needed[2:])
        if d_x is not None:
            shape = next(grad for grad in grads if grad is not None).shape
            d_x = d_x.view(*shape[:-1], d_x.shape[-1])
        return None, d_x, *d_learned


def _forward(
    call: _Call, x: Tensor, out: Sequence[Tensor | None], *, keeps: bool = False
) -> tuple[list[Tensor], Tensor | None, Tensor | None]:
    """Compute the layers.

    Args:
        keeps: keep what a backward pass needs.

    Returns:
        Each layer's output (..., out), the joint hidden states [rows, ranks] of all branches, and GELU's input
        [rows, out], which lacks the branch's part if that is added in one pass.
    """
    rows = _rows(x)
    hidden = F.linear(rows, stacked([each.down for each in call.branches])) if call.branches else None
    outputs, kept = [], None
    for index, (layer, place) in enumerate(zip(call.layers, out, strict=True)):
        place_rows = _rows_in_place(place)
        output = product(layer, rows, place_rows)
        for branch, (begin, end) in zip(call.branches, call.ranks, strict=True):
            if branch.layer == index and not call.one_pass:
                assert hidden is not None
                output.addmm_(hidden[:, begin:end], branch.up.t(), alpha=branch.scale)
        if call.gelu:
            kept = output
            output = _gelu(call, output, hidden, in_place=not keeps)
        if place is not None and output is place_rows:
            outputs.append(place)
        else:
            outputs.append(_placed(output.view(*x.shape[:-1], output.shape[-1]), place))
    return outputs, hidden, kept if keeps else None


def _gelu(call: _Call, x: Tensor, hidden: Tensor | None, *, in_place: bool) -> Tensor:
    if not call.one_pass:
        return torch.ops.aten.gelu_.default(x, approximate="tanh") if in_place else F.gelu(x, approximate="tanh")
    assert hidden is not None
    out = x if in_place else torch.empty_like(x)
    kernels.gelu_low_rank(x, hidden, call.branches[0].up, call.branches[0].scale, out)
    return out


def _gelu_backward(call: _Call, grad: Tensor, *kept: Tensor) -> Tensor:
    """Return the gradient of GELU's input; `kept` ends with the hidden states, if there are any, and that input."""
    if not call.one_pass:
        return torch.ops.aten.gelu_backward.default(grad, kept[-1], approximate="tanh")
    hidden, x = kept
    return kernels.gelu_low_rank_backward(grad, x, hidden, call.branches[0].up, call.branches[0].scale)


def _input_gradient(layers: Sequence[Linear], grads: Sequence[Tensor | None]) -> Tensor | None:
    """Return the sum of grad @ W over the layers, [rows, in], from the gradients [rows, out] of their outputs."""
    total = None
    for layer, grad in zip(layers, grads, strict=True):
        if grad is not None:
            total = back_product(layer, grad, total)
    return total


def _branch_gradients(
    call: _Call,
    x: Tensor,
    hidden: Tensor,
    grads: Sequence[Tensor | None],
    d_x: Tensor | None,
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """Return the gradients of each branch's down and up, in fp32, and add the branches' part to d_x [rows, in]."""
    ups: list[Tensor | None] = []
    d_hidden: list[Tensor] = []
    for branch, (begin, end), need in zip(call.branches, call.ranks, needed[1::2], strict=True):
        grad, part = grads[branch.layer], hidden[:, begin:end]
        d_hidden.append(torch.zeros_like(part) if grad is None else _scaled_product(grad, branch.up, branch.scale))
        # In this order it is twice as fast on a CPU as grad^T @ hidden.
        ups.append(_scaled_product(part.t(), grad, branch.scale).t() if need and grad is not None else None)
    joint_gradient = d_hidden[0] if len(d_hidden) == 1 else torch.cat(d_hidden, 1)
    if d_x is not None:
        d_x.addmm_(joint_gradient, stacked([branch.down for branch in call.branches]))
    downs: list[Tensor | None] = [None] * len(ups)
    if any(needed[0::2]):
        joint = joint_gradient.t() @ x  # (ranks, in)
        downs = [
            joint[begin:end] if need and grads[branch.layer] is not None else None
            for branch, (begin, end), need in zip(call.branches, call.ranks, needed[0::2], strict=True)
        ]
    return _in_fp32([gradient for pair in zip(downs, ups, strict=True) for gradient in pair])


def _scaled_product(left: Tensor, right: Tensor, scale: float) -> Tensor:
    """Return scale * left @ right, [n, k] @ [k, m]."""
    if scale == 1.0:
        return left @ right
    unused = right[:1, :1]  # added with the factor 0: torch has this factor only with a sum
    return torch.addmm(unused, left, right, beta=0, alpha=scale)


def _in_fp32(gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Return the gradients in fp32, the dtype of what learns, and contiguous; all cast at once."""
    found = list(gradients)
    index = [i for i, each in enumerate(found) if each is not None and not _is_final(each)]
    if index:
        before = [each for i in index if (each := found[i]) is not None]
        cast = [torch.empty(each.shape, dtype=torch.float32, device=each.device) for each in before]
        torch._foreach_copy_(cast, before)
        for i, each in zip(index, cast, strict=True):
            found[i] = each
    return found


def _is_final(gradient: Tensor) -> bool:
    return gradient.dtype == torch.float32 and gradient.is_contiguous()


def product(layer: Linear, rows: Tensor, out: Tensor | None = None) -> Tensor:
    """Compute a layer without its hooks: rows [n, in] -> [n, out], if possible written to `out`."""
    if isinstance(layer, QuantisedLinear):
        return layer.product(rows)
    weight, bias = layer.weight, layer.bias
    if _by_onednn(rows, weight):
        made: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
        return made
    if out is not None and bias is not None:
        return torch.addmm(bias, rows, weight.t(), out=out)
    return F.linear(rows, weight, bias)


def back_product(layer: Linear, grad: Tensor, total: Tensor | None) -> Tensor:
    """Return grad @ W, [n, out] @ [out, in], added to `total` in place if there is one."""
    weight = layer.dequantised(grad.dtype) if isinstance(layer, QuantisedLinear) else layer.weight
    if _by_onednn(grad, weight):
        made: Tensor = torch.ops.mkldnn._linear_pointwise(grad, weight.t(), None, "none", [], "")
        return made if total is None else total.add_(made)
    return grad @ weight if total is None else total.addmm_(grad, weight)


def stacked(matrices: Sequence[Tensor]) -> Tensor:
    """Stack matrices [n, columns] by rows: a view if they lie one behind the other in memory, else a new tensor."""
    first = matrices[0]
    if len(matrices) == 1:
        return first
    end = first.storage_offset()
    storage = first.untyped_storage()._cdata
    for matrix in matrices:
        if matrix.untyped_storage()._cdata != storage or matrix.storage_offset() != end or not matrix.is_contiguous():
            return torch.cat(list(matrices))
        end += matrix.numel()
    rows = sum(matrix.shape[0] for matrix in matrices)
    return first.as_strided((rows, first.shape[1]), (first.shape[1], 1))


def _by_onednn(rows: Tensor, weight: Tensor) -> bool:
    return (
        rows.device.type == "cpu"
        and rows.dtype == weight.dtype == torch.float32
        and rows.shape[0] * weight.numel() >= LARGE_PRODUCT
        and type(weight) in (Tensor, nn.Parameter)
        and torch.backends.mkldnn.is_available()
    )


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


def _rows_in_place(place: Tensor | None) -> Tensor | None:
    """Return the memory of a place (..., out) as rows [n, out]; None if that is impossible."""
    return place.flatten(0, -2) if place is not None and place.is_contiguous() else None


def _placed(output: Tensor, place: Tensor | None) -> Tensor:
    """Return the output (..., out), copied to its place if there is one."""
    return output if place is None else place.copy_(output)
