"""What a stretch of code takes: memory by part, and work by kind of operator, both of the code that really runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
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
            result, call = _without_data(func, args, kwargs)
        else:
            result, call = func(*args, **kwargs), None
        self.follow(func, args, kwargs, result)
        if call is None:
            done = _work(func, args, kwargs, result, self.device_type)
        else:
            if not call.is_counted:
                call.done, call.is_counted = _work(func, args, kwargs, result, self.device_type), True
            done = call.done
        if done is not None:
            self.count(func, *done)
            if self._workspaces and func._overloadpacket is _BACKWARD:
                query: Tensor = args[1]
                self.passing(ATTENTION, query.numel() * 4)
        return result

    def count(self, func: OpOverload, kind: str, work: Work) -> None:
        """Count a call that has a kernel, and its work."""
        launches, moved, flops = work
        before = self.work.get(kind, NONE)
        self.work[kind] = Work(before[0] + launches, before[1] + moved, before[2] + flops)


def _work(
    func: OpOverload, args: Arguments, kwargs: NamedArguments, result: object, device_type: str
) -> tuple[str, Work] | None:
    """The kind and the work of an operator's call; None if it has no kernel on the device."""
    moved = bytes_moved(func, args, result, device_type)
    if not moved:
        return None
    kind, _ = kind_and_overwriting(func)
    assert kind is not None
    flops, packet = 0, func._overloadpacket
    if kind is not ELEMENTWISE and packet in flop_registry:
        flops = int(flop_registry[packet](*args, **kwargs, out_val=result))
    if kind is PRODUCTS and flops < BALANCE * moved:
        kind = THIN
    return kind, Work(1, moved, flops)


_Shape = tuple[torch.Size, tuple[int, ...], torch.dtype]


@dataclass(slots=True)
class _Call:
    """What is known of a call without data."""

    made: list[_Shape | None] | _Shape | None
    """The tensors that it makes; None: it writes into one that it gets for that, which has the right shape."""
    done: tuple[str, Work] | None = None
    """The kind of its work, and the work; None if it has no kernel."""
    is_counted: bool = False
    """Whether `done` is known."""


_known: dict[tuple[object, ...], _Call] = {}
"""Operator and arguments -> the call. torch derives shapes in Python, which takes most of the time."""


def _without_data(func: OpOverload, args: Arguments, kwargs: NamedArguments) -> tuple[object, _Call | None]:
    """Call an operator without computing values; shapes that were derived before are reused.

    Returns:
        Its result, and the call if equal ones give equal results.
    """
    is_remembered, first = _treatment(func), args[0] if args else None
    if is_remembered is None:  # it only changes values
        if isinstance(first, Tensor) and first.is_meta:
            return first, None
        if isinstance(first, list | tuple) and all(each.is_meta for each in first):
            return None, None
    if not is_remembered:
        return func(*args, **kwargs), None
    try:
        key = (func, _described(args), _described(tuple(kwargs.items())) if kwargs else ())
        call = _known.get(key)
    except TypeError:  # an argument that cannot be compared
        return func(*args, **kwargs), None
    if call is None:
        result = func(*args, **kwargs)
        if func in _FILLING:
            if key[2] == _described(tuple(kwargs.items())):
                call = _Call(None)
        elif _is_new(result, args):
            call = _Call(_shape(result))
        elif isinstance(result, tuple | list) and all(each is None or _is_new(each, args) for each in result):
            call = _Call([None if each is None else _shape(each) for each in result])
        if call is not None:
            _known[key] = call
        return result, call
    made = call.made
    if made is None:
        return kwargs["out"], call
    return ([None if each is None else _empty(each) for each in made] if isinstance(made, list) else _empty(made)), call


@cache
def _treatment(func: OpOverload) -> bool | None:
    """Whether the results of an operator's calls are remembered; None: it only changes the values of its first
    argument."""
    if func in _WRITING or re.fullmatch(r"aten::_foreach_\w+_", func._schema.name):
        return None
    return func in _FILLING or _makes_new(func)


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
