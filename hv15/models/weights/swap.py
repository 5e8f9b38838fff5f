"""Block swap: some blocks of a frozen transformer wait in the machine's memory and visit the device one by one.

- Weights travel to the device only. Each waiting block is one packed piece of (pinned) memory, fetched by one copy into
  one of two fixed slots of device memory: nothing is allocated on the way, and a block's tensors always stand at the
  same addresses.
- While a block computes, the next one is fetched into the other slot. Which one is next follows from the direction:
  forward in sampling; forward and back in training, where gradient checkpointing computes each block again. A wrong
  guess costs the wait for a copy, never a wrong number.
- A block is done with when another one begins, in both directions: autograd finishes what was computed later first.
- Away from the device a weight is an `Away`, which raises when it is used.
- LoRA hooks on the linear layers and `state_dict()` work as without it; `dit.to(device)` does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import chain, islice
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils.hooks import RemovableHandle

from hv15.errors import UserError
from hv15.models.weights.block_hooks import BlockHook
from hv15.models.weights.transfers import HostTransfers, Ticket, transfers_for

SLOTS = 2
"""Blocks that visit at a time: one computes, one arrives."""
_ALIGNMENT = 512  # bytes, as of the tensors that a GPU's allocator makes: kernels are chosen by alignment


def swapped_indices(num_blocks: int, count: int) -> list[int]:
    """The blocks that start in the machine's memory when `count` are to wait there: spread evenly, and SLOTS more.

    The two more are those that visit at any time, so the device holds `num_blocks - count` blocks in all. Between
    evenly spread visitors there is always something to compute while the next one is fetched.

    Raises:
        UserError: fewer than SLOTS blocks would be left on the device.
    """
    if count > max(num_blocks - SLOTS, 0):
        raise UserError(
            f"blocks_to_swap: {count}, but the transformer has {num_blocks} blocks, and {SLOTS} are on the device "
            "at a time",
            hint=f"use at most {max(num_blocks - SLOTS, 0)}",
        )
    if count == 0:
        return []
    visitors = count + SLOTS
    return [(2 * i + 1) * num_blocks // (2 * visitors) for i in range(visitors)]


class BlockSwap(BlockHook):
    """The waiting blocks, and the slots on the device that they visit.

    Args:
        blocks: frozen; each may be on the CPU or on the device. Those that do not wait are moved to the device.
        count: so many of them wait.
        device: where they compute.

    Raises:
        UserError: too many.
    """

    def __init__(
        self, blocks: nn.ModuleList, count: int, device: torch.device | str, transfers: HostTransfers | None = None
    ) -> None:
        device = torch.device(device)
        self.indices = swapped_indices(len(blocks), count)
        """The blocks that travel."""
        if any(parameter.requires_grad for index in self.indices for parameter in blocks[index].parameters()):
            raise ValueError("block swap is for frozen blocks: their weights are never copied back")
        self._end = len(blocks) - 1
        self._transfers = transfers or transfers_for(device)
        self._last, self._back = -1, False  # the block that computed last, and whether in the backward pass
        # First those that leave the device, so that there is room for those that come.
        self._visitors = {index: _Visitor(index, blocks[index], device, self._transfers) for index in self.indices}
        self._transfers.finish()
        for index, block in enumerate(blocks):
            if index not in self._visitors:
                block.to(device)
        size = max((visitor.size for visitor in self._visitors.values()), default=0)
        self.slots = [_Slot(size, device) for _ in range(SLOTS if self._visitors else 0)]
        self._slot_of = {index: self.slots[turn % SLOTS] for turn, index in enumerate(self.indices)}
        self._handles: list[RemovableHandle] = []
        for index, visitor in self._visitors.items():
            visitor.settle(self._slot_of[index].memory)
            self._handles.append(blocks[index].register_state_dict_post_hook(partial(visitor.add_to_state)))

    @property
    def host_bytes(self) -> int:
        """The machine's memory that the waiting blocks take."""
        return sum(visitor.size for visitor in self._visitors.values())

    def around_blocks(self, *, recomputed: bool) -> AbstractContextManager[object]:
        """Nothing is held.

        Raises:
            ValueError: gradients are wanted without gradient checkpointing, which visits the blocks once more.
        """
        if torch.is_grad_enabled() and not recomputed:
            raise ValueError("block swap needs gradient_checkpointing: the backward pass visits the blocks once more")
        return nullcontext()

    def before_block(self, index: int) -> None:
        """Have a block in place before it computes, and the next ones on their way; all others are done with."""
        self._back = index == self._last - 1 or index == self._last == self._end
        self._last = index
        wanted = dict.fromkeys(islice(self._coming(index), SLOTS))
        for each in wanted:
            slot = self._slot_of[each]
            if slot.holds != each and slot.holds not in wanted:
                self._fetch(each, slot)
        if index in wanted:
            self._transfers.wait(self._slot_of[index].ticket)
            self._visitors[index].arrive()

    def remove(self) -> None:
        """Undo it: ordinary weights again, those of the waiting blocks in the machine's memory."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._transfers.finish()
        for visitor in self._visitors.values():
            visitor.stay_on_host()
        self._visitors, self._slot_of, self.slots = {}, {}, []

    def _coming(self, index: int) -> Iterator[int]:
        """The visitors in the order of their turns, from this block on."""
        if self._back:  # down to the first block, then the next forward pass
            return chain([each for each in reversed(self.indices) if each <= index], self.indices)
        onward = [each for each in self.indices if each >= index]
        return chain(onward, reversed(self.indices) if torch.is_grad_enabled() else self.indices)

    def _fetch(self, index: int, slot: _Slot) -> None:
        # In this order, so that an interruption at any point leaves a slot that holds nothing, not a wrong block.
        if slot.holds is not None:
            self._visitors[slot.holds].leave()
        slot.holds = None
        slot.ticket = self._transfers.begin(slot.memory, self._visitors[index].memory)
        slot.holds = index


class Away(Tensor):
    """A weight that is not on the device: it has a shape, and raises when it is used."""

    label: str

    @staticmethod
    def __new__(cls, shape: torch.Size, dtype: torch.dtype, device: torch.device, label: str) -> Away:
        made: Away = Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=device, storage_size=0)
        made.label = label
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch declares it for subclasses of any kind
        cls,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        if func is torch.ops.aten.detach.default:  # state_dict() asks for it; a hook gives the true weight then
            return args[0]
        away = next((each for each in args if isinstance(each, Away)), None)
        raise RuntimeError(f"{away.label if away is not None else 'a weight'} is used while it is not on the device")

    def __repr__(self, *, tensor_contents: object = None) -> str:  # type: ignore[override]  # torch's is untyped
        return f"Away({self.label}, {list(self.shape)})"


class _Slot:
    """Device memory for one visiting block."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.memory = torch.empty(size, dtype=torch.uint8, device=device)
        self.holds: int | None = None
        """The block whose weights are here, or on their way."""
        self.ticket: Ticket | None = None


class _Packed(NamedTuple):
    """A tensor of a block: where it is in its module, and in packed memory."""

    owner: dict[str, Tensor | None]
    """The module's parameters, or its buffers."""
    name: str
    key: str
    offset: int
    shape: torch.Size
    dtype: torch.dtype
    is_parameter: bool

    def view(self, memory: Tensor) -> Tensor:
        size = self.shape.numel() * self.dtype.itemsize
        return memory[self.offset : self.offset + size].view(self.dtype).view(self.shape)

    def tensor(self, memory: Tensor) -> Tensor:
        """The same as the module should hold it."""
        return nn.Parameter(self.view(memory), requires_grad=False) if self.is_parameter else self.view(memory)


class _Visitor:
    """A block whose tensors are packed on the host: parameters and buffers of it and its submodules."""

    def __init__(self, index: int, block: nn.Module, device: torch.device, transfers: HostTransfers) -> None:
        self._packed, self.size = _pack(block)
        self._arrived: list[Tensor] = []
        self.memory = transfers.host_memory(self.size)
        for each in self._packed:
            held = each.owner[each.name]
            assert held is not None
            transfers.begin(each.view(self.memory), held.detach())
        self._away: list[Tensor] = [
            Away(each.shape, each.dtype, device, f"block {index}: {each.key}") for each in self._packed
        ]
        self.leave()

    def settle(self, slot: Tensor) -> None:
        """Take a slot as the place of the visits."""
        self._arrived = [each.tensor(slot) for each in self._packed]

    def arrive(self) -> None:
        """Let the modules use the weights in the slot."""
        self._set(self._arrived)

    def leave(self) -> None:
        """Let the modules have no weights."""
        self._set(self._away)

    def stay_on_host(self) -> None:
        """Let the modules use the weights on the host."""
        self._set([each.tensor(self.memory) for each in self._packed])

    def add_to_state(self, _block: nn.Module, state: dict[str, Tensor], prefix: str, _metadata: object) -> None:
        """Put the weights on the host into a state dict."""
        for each in self._packed:
            if prefix + each.key in state:
                state[prefix + each.key] = each.view(self.memory)

    def _set(self, tensors: list[Tensor]) -> None:
        for each, tensor in zip(self._packed, tensors, strict=True):
            each.owner[each.name] = tensor


def _pack(block: nn.Module) -> tuple[list[_Packed], int]:
    """Plan the places of a block's tensors in one piece of memory, and its size in bytes."""
    packed: list[_Packed] = []
    offset = 0
    for prefix, module in block.named_modules():
        for owner, is_parameter in ((module._parameters, True), (module._buffers, False)):
            for name, tensor in owner.items():
                if tensor is None:
                    continue
                key = f"{prefix}.{name}" if prefix else name
                packed.append(_Packed(owner, name, key, offset, tensor.shape, tensor.dtype, is_parameter))
                offset += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
    return packed, offset
