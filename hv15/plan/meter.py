"""What a stretch of code takes: memory by part, and work by kind of operator, both of the code that really runs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TypeGuard

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils.flop_counter import flop_registry, register_flop_formula

from hv15.memory import ATTENTION, Arguments, NamedArguments, PeakMemory
from hv15.models import fused_attention as _fused  # these two register the operators that are counted here
from hv15.models import pass_kernels as _passes
from hv15.plan.work import BALANCE, ELEMENTWISE, NONE, PRODUCTS, THIN, Work, bytes_moved, kind_and_overwriting

_FORWARD, _BACKWARD = torch.ops.hv15.fused_attention, torch.ops.hv15.fused_attention_backward
assert _fused
assert _passes


class Meter(PeakMemory):
    """PeakMemory that also counts kernels, bytes moved and arithmetic, and does not compute what has no data.

    A multiplication and an addition are two operations. Counted are those of matrix products, convolutions and
    attention, as torch.utils.flop_counter does; all the rest is bound by memory, not by arithmetic.

        with Meter("meta") as meter:
            block(img, txt, vec, rope)
        print(meter.launches, meter.moved, meter.work)

    Args:
        device_type: as for PeakMemory.
        workspaces: also count what kernels of a GPU take for themselves where it grows with the work: the gradient of
            q is summed in fp32 in the backward pass of attention.
    """

    def __init__(self, device_type: str, *, workspaces: bool = False) -> None:
        super().__init__(device_type)
        self.work: dict[str, Work] = {}
        """Kind of operator -> what the device does."""
        self.validation: dict[str, Work] = {}
        """The same for the measuring of one clip, which is not part of a step."""
        self._workspaces = workspaces

    @property
    def launches(self) -> int:
        """Kernels, at least."""
        return sum(each.launches for each in self.work.values())

    @property
    def moved(self) -> int:
        """Bytes read from the device's memory and written to it."""
        return sum(each.moved for each in self.work.values())

    @property
    def flops(self) -> int:
        """Floating point operations."""
        return sum(each.flops for each in self.work.values())

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: Arguments = (),
        kwargs: NamedArguments | None = None,
    ) -> object:
        kwargs = kwargs or {}
        if self.device_type == "meta":
            result = _without_data(func, args, kwargs)
            self.follow(func, args, kwargs, result)
        else:
            result = super().__torch_dispatch__(func, types, args, kwargs)
        moved = bytes_moved(func, args, result, self.device_type)
        if moved:
            self.count(func, args, kwargs, result, moved)
        return result

    def count(self, func: OpOverload, args: Arguments, kwargs: NamedArguments, result: object, moved: int) -> None:
        """Count the work of an operator's call that moves so many bytes."""
        kind, _ = kind_and_overwriting(func)
        assert kind is not None
        packet, flops = func._overloadpacket, 0
        if kind is not ELEMENTWISE and packet in flop_registry:
            flops = int(flop_registry[packet](*args, **kwargs, out_val=result))
        if kind is PRODUCTS and flops < BALANCE * moved:
            kind = THIN
        launches, before, operations = self.work.get(kind, NONE)
        self.work[kind] = Work(launches + 1, before + moved, operations + flops)
        if self._workspaces and packet is _BACKWARD:
            query: Tensor = args[1]
            self.passing(ATTENTION, query.numel() * 4)


_Shape = tuple[torch.Size, tuple[int, ...], torch.dtype]
_known: dict[tuple[object, ...], list[_Shape | None] | _Shape] = {}
"""Call without data -> the tensors that it makes. torch derives them in Python, which takes most of the time."""
_fitting: set[tuple[object, ...]] = set()
"""Calls without data that write into a tensor which has the right shape already."""


def _without_data(func: OpOverload, args: Arguments, kwargs: NamedArguments) -> object:
    """Call an operator without computing values; shapes that were derived before are reused."""
    if func in _WRITING and args[0].is_meta:
        return args[0]
    if not (func in _FILLING or _makes_new(func)):
        return func(*args, **kwargs)
    try:
        key = (func, _described(args), _described(tuple(kwargs.items())))
        found = _known.get(key)
    except TypeError:  # an argument that cannot be compared
        return func(*args, **kwargs)
    if key in _fitting:
        return kwargs["out"]
    if found is None:
        result = func(*args, **kwargs)
        if func in _FILLING:
            if key[2] == _described(tuple(kwargs.items())):
                _fitting.add(key)
        elif _is_new(result, args):
            _known[key] = _shape(result)
        elif isinstance(result, tuple | list) and all(each is None or _is_new(each, args) for each in result):
            _known[key] = [None if each is None else _shape(each) for each in result]
        return result
    return [None if each is None else _empty(each) for each in found] if isinstance(found, list) else _empty(found)


@cache
def _makes_new(func: OpOverload) -> bool:
    """Whether an operator neither writes into what it gets nor returns parts of it."""
    schema = func._schema
    return not any(each.alias_info for each in (*schema.arguments, *schema.returns)) and bool(schema.returns)


def _is_new(result: object, args: Arguments) -> TypeGuard[Tensor]:
    """Whether a result has no data and no storage of an argument, as a view has of which the operator's schema does not
    say so (`_unsafe_view`)."""
    if not (isinstance(result, Tensor) and result.is_meta):
        return False
    storage = result.untyped_storage()._cdata
    return not any(isinstance(each, Tensor) and each.untyped_storage()._cdata == storage for each in args)


def _described(value: object) -> tuple[object, ...]:
    if isinstance(value, Tensor):
        if not value.is_meta:
            raise TypeError("only the meta device has no data")
        return (value.shape, value.stride(), value.dtype)
    return tuple(map(_described, value)) if isinstance(value, tuple | list) else (type(value), value)


def _shape(tensor: Tensor) -> _Shape:
    return tensor.shape, tensor.stride(), tensor.dtype


def _empty(shape: _Shape) -> Tensor:
    return torch.empty_strided(shape[0], shape[1], dtype=shape[2], device="meta")


_aten = torch.ops.aten
_WRITING = {
    *(_aten.add_.Tensor, _aten.add_.Scalar, _aten.mul_.Tensor, _aten.mul_.Scalar, _aten.div_.Tensor, _aten.sub_.Tensor),
    *(_aten.copy_.default, _aten.fill_.Scalar, _aten.zero_.default, _aten.silu_.default, _aten.baddbmm_.default),
    *(_aten.addmm_.default, _aten.addcmul_.default, _aten.clamp_min_.default, _aten.sqrt_.default),
    *(_aten.addcdiv_.default, _aten.lerp_.Scalar, _aten.pow_.Scalar, _aten.rsqrt_.default, _aten.gelu_.default),
}
"""Operators that only change values."""
_FILLING = {_aten.addmm.out, _aten.addcmul.out, _aten.mul.out}
"""Operators that write into a tensor which they get for that."""

# torch.utils.flop_counter knows only the forms that make a new tensor.
flop_registry[_aten.addmm_] = flop_registry[_aten.addmm]
flop_registry[_aten.baddbmm_] = flop_registry[_aten.baddbmm]


@register_flop_formula(torch.ops.hv15.gelu_low_rank)
def _gelu_flops(_x: torch.Size, hidden: torch.Size, up: torch.Size, *_: object, **__: object) -> int:
    return 2 * hidden[0] * up[0] * up[1]


@register_flop_formula(torch.ops.hv15.gelu_low_rank_backward)
def _gelu_backward_flops(grad: torch.Size, *shapes: torch.Size, **__: object) -> int:
    return _gelu_flops(*shapes)


@register_flop_formula(torch.ops.hv15.gated_low_rank)
def _gated_flops(_x: torch.Size, _gate: torch.Size, y: torch.Size, *shapes: torch.Size, **__: object) -> int:
    return _gelu_flops(y, *shapes)


@register_flop_formula(_FORWARD)
def _attention_flops(q: torch.Size, k: torch.Size, *_: object, **__: object) -> int:
    return _two_products(q, k)


def _two_products(q: torch.Size, k: torch.Size) -> int:
    """Of tokens x tokens x head width, each two operations."""
    batch, tokens, heads, width = q
    return 4 * batch * heads * tokens * k[1] * width


@register_flop_formula(_BACKWARD)
def _attention_backward_flops(grad: torch.Size, q: torch.Size, k: torch.Size, *_: object, **__: object) -> int:
    """Five products instead of two: the scores are computed again."""
    return _two_products(q, k) * 5 // 2
