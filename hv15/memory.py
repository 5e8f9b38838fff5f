"""How much memory code takes, exactly: every storage of one device type is tracked while the code runs.

On the meta device tensors have sizes and no data, so the memory of a step of the real model is found by running that
step there: the code that runs later is the code that is measured. What a GPU's allocator, its libraries and its context
take on top is not seen here (`hv15.plan.devices` allows for it).

    with torch.device("meta"):
        dit = DiT(DiTConfig()).to(torch.bfloat16)
    with PeakMemory("meta") as memory:
        memory.assign("weights", dit)
        training_step(dit)
    print(memory.peak / 2**30, memory.parts)
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import chain
from typing import Any, TypeAlias

import torch
from torch import Tensor, UntypedStorage, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

Arguments: TypeAlias = tuple[Any, ...]  # what an operator of torch takes
NamedArguments: TypeAlias = dict[str, Any]

WEIGHTS, ACTIVATIONS, ATTENTION = "weights", "activations", "attention"
ELSEWHERE = "elsewhere"
"""A part that is not counted: what another device would hold, when one device stands for both."""
_RESIZE = torch.ops.aten.resize_.default


class PeakMemory(TorchDispatchMode):
    """Bytes of the live storages of one device type that were made inside the block, or assigned to a part.

    Each storage belongs to a part, by default the one that `making` says where it is made; what an attention kernel
    reads or writes belongs to `attention`.

    Args:
        device_type: "cpu", "cuda", "meta": storages elsewhere are not counted.
    """

    def __init__(self, device_type: str) -> None:
        super().__init__()
        self.device_type = device_type
        self.now = self.peak = 0
        self.parts: dict[str, int] = {}
        """Part -> bytes at the moment of the peak."""
        self.moments: dict[Hashable, dict[str, int]] = {}
        """Moment (see `begin`) -> part -> bytes at the peak of that moment."""
        self._live: dict[int, tuple[int, str]] = {}
        self._watches: dict[int, _Watch] = {}
        self._highest: dict[Hashable, int] = {}
        self._now: Counter[str] = Counter()
        self._making = [ACTIVATIONS]
        self._moment: Hashable = None

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: Arguments = (),
        kwargs: NamedArguments | None = None,
    ) -> object:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self.follow(func, args, kwargs, result)
        return result

    def follow(self, func: OpOverload, args: Arguments, kwargs: NamedArguments, result: object) -> None:
        """Count what a call has made."""
        makes, is_attention = _makes_storage(func)
        if is_attention:
            self.assign(ATTENTION, *_tensors((args, tuple(kwargs.values()), result)))
        elif not makes:  # a view's storage is known already, or was made outside
            return
        elif isinstance(result, Tensor):
            self._follow(result, self._making[-1])
        else:
            for tensor in _tensors(result):
                self._follow(tensor, self._making[-1])

    def assign(self, part: str, *owners: Tensor | nn.Module | None) -> None:
        """Count these tensors, and those of these modules, as a part, whenever they were made.

        What has a part of its own already (weights that attention reads) keeps it.
        """
        for owner in owners:
            tensors = [owner] if not isinstance(owner, nn.Module) else chain(owner.parameters(), owner.buffers())
            for tensor in tensors:
                if tensor is not None:
                    self._follow(tensor, part, assigned=True)

    @contextmanager
    def making(self, part: str) -> Iterator[None]:
        """Inside, new storages belong to this part."""
        self._making.append(part)
        try:
            yield
        finally:
            self._making.pop()

    def begin(self, moment: Hashable) -> None:
        """Begin a stretch of the run that gets a peak of its own; the same one may begin several times."""
        self._moment = moment
        self._remember()

    def passing(self, part: str, size: int) -> None:
        """Count bytes that were there for a moment only, and that no tensor shows."""
        self._now[part] += size
        self.now += size
        self._remember()
        self._now[part] -= size
        self.now -= size

    def _follow(self, tensor: Tensor, part: str, *, assigned: bool = False) -> None:
        if tensor.device.type != self.device_type or part == ELSEWHERE:
            return
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        known = self._live.get(key)
        if known is None:
            watch = self._watches[key] = _Watch(storage, self._gone)
            watch.key = key
        else:
            if not assigned or known[1] != ACTIVATIONS:
                part = known[1]
            if known == (size, part):
                return
            self._free(key)
        self._live[key] = (size, part)
        self._now[part] += size
        self.now += size
        self._remember()

    def _gone(self, watch: _Watch) -> None:
        if self._watches.get(watch.key) is watch:
            del self._watches[watch.key]
            self._free(watch.key)

    def _free(self, key: int) -> None:
        size, part = self._live.pop(key, (0, ACTIVATIONS))
        self._now[part] -= size
        self.now -= size

    def _remember(self) -> None:
        if self.now > self.peak:
            self.peak, self.parts = self.now, self._snapshot()
        if self._moment is not None and self.now > self._highest.get(self._moment, 0):
            self._highest[self._moment] = self.now
            self.moments[self._moment] = self._snapshot()

    def _snapshot(self) -> dict[str, int]:
        return {part: size for part, size in self._now.items() if size}


@cache
def _makes_storage(func: OpOverload) -> tuple[bool, bool]:
    """Whether an operator may make a storage or change its size, and whether it is attention."""
    is_view = any(each.alias_info for each in func._schema.returns)
    return func is _RESIZE or not is_view, "attention" in func.name()


class _Watch(weakref.ref[UntypedStorage]):
    """A reference to a storage, which knows under which number it is counted."""

    __slots__ = ("key",)
    key: int


def _tensors(value: object) -> Iterable[Tensor]:
    """The tensors in an operator's arguments or results."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _tensors(each)
