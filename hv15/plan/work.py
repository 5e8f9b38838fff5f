"""What a device has to do for operators: kernels, bytes through its memory and arithmetic, by kind of operator.

Bytes are those of the tensors that an operator reads and writes, as if each kernel began with empty caches. A view is
no work. An operator counts as one kernel, so a fused operation does if it is one operator to torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from math import prod
from typing import NamedTuple, TypeAlias

from torch import Tensor
from torch._ops import OpOverload
from torch.utils.flop_counter import flop_registry

PRODUCTS, THIN, CONVOLUTIONS, ATTENTION, ELEMENTWISE = (
    "products",
    "thin products",
    "convolutions",
    "attention",
    "elementwise",
)
BALANCE = 150
"""Operations for each byte below which a product is thin: it waits for memory, not for arithmetic. GPUs can do 150
(T4, RTX 4090) to 400 (L40S) bfloat16 operations in the time of a byte. A LoRA's products at rank 16 do 16 for each."""


class Work(NamedTuple):
    """Of some operators on one device."""

    launches: int = 0
    """Kernels, at least."""
    moved: int = 0
    """Bytes read from the device's memory and written to it."""
    flops: int = 0
    """Floating point operations; only products, convolutions and attention have any."""

    def plus(self, other: Work, times: float = 1) -> Work:
        """Return this work and `times` the other."""
        return Work(*(mine + round(times * more) for mine, more in zip(self, other, strict=True)))


WorkByKind: TypeAlias = "Mapping[str, Work]"
NONE = Work()


def extrapolate_work(few: WorkByKind, more: WorkByKind, times: int) -> dict[str, Work]:
    """Return `few` plus `times` the difference between `few` and `more`."""
    kinds = {}
    for kind in {**few, **more}:
        less, greater = few.get(kind, NONE), more.get(kind, NONE)
        kinds[kind] = less.plus(greater.plus(less, -1), times)
    return kinds


def scaled_work(work: WorkByKind, times: float) -> dict[str, Work]:
    """Return `times` the work."""
    return {kind: NONE.plus(each, times) for kind, each in work.items()}


def bytes_moved(func: OpOverload, args: tuple[object, ...], result: object, device_type: str) -> int:
    """Return the bytes that an operator reads and writes on this type of device; 0 for one without a kernel there."""
    kind, overwrites = kind_and_overwriting(func)
    if kind is None:
        return 0
    return _size(args[1:] if overwrites else args, device_type) + _size(result, device_type)


@cache
def kind_and_overwriting(func: OpOverload) -> tuple[str | None, bool]:
    """Return an operator's kind, None for one without a kernel, and whether it does not read its first argument.

    Products may turn out to be thin.
    """
    packet, name = func._overloadpacket, func._schema.name.partition("::")[2]
    if "attention" in name:
        return ATTENTION, False
    if packet in flop_registry:
        return (CONVOLUTIONS if "convolution" in name else PRODUCTS), False
    returns_view = any(each.alias_info and not each.alias_info.is_write for each in func._schema.returns)
    if returns_view or name in _WITHOUT_KERNEL or name.startswith(("empty", "new_empty")):
        return None, False
    return ELEMENTWISE, name in _OVERWRITING


_WITHOUT_KERNEL = {
    "_unsafe_view",
    "_reshape_alias",
    "detach",
    "alias",
    "lift_fresh",
    "set_",
    "resize_",
    "record_stream",
}
_OVERWRITING = {"copy_", "fill_", "zero_", "normal_", "uniform_"}


def _size(value: object, device_type: str) -> int:
    """Bytes of the tensors in an operator's arguments or results; an expanded dimension is read once."""
    if isinstance(value, Tensor):
        if value.device.type != device_type:
            return 0
        size, strides = value.nbytes, value.stride()
        if 0 in strides and size:
            size = value.itemsize * prod(side for side, stride in zip(value.shape, strides, strict=True) if stride)
        return size
    if isinstance(value, tuple | list):
        return sum([_size(each, device_type) for each in value])
    return 0
