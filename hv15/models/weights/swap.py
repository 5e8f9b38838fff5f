"""Block swap: keeps some blocks of a frozen transformer in CPU memory and copies each to the device when it computes.

- Weights are copied to the device, never back. Each swapped block is one packed piece of (pinned) memory, which is
  copied at once into one of two fixed slots of device memory. Nothing is allocated for it, and a block's tensors always
  have the same addresses.
- While a block computes, the next one is copied into the other slot. The direction tells which is next: forward in
  sampling; forward, then backward in training, where gradient checkpointing recomputes each block. A wrong prediction
  costs the wait for a copy but never affects the numbers.
- A block is no longer needed when another one begins, in both directions, because autograd goes strictly backward.
- While a block is not on the device, its weights are `AbsentWeight`s, which raise when they are used.
- LoRA hooks on the linear layers and `state_dict()` work as usual; `dit.to(device)` does not.
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
"""Number of swapped blocks on the device at a time: one computes while the next is copied."""
_ALIGNMENT = 512  # bytes, as in torch's GPU allocator: the choice of kernels depends on alignment


def swapped_indices(num_blocks: int, count: int) -> list[int]:
    """Return the indices of the blocks to swap so that `count` blocks are in CPU memory at a time, spread evenly.

    These are SLOTS more than `count`, because that many are on the device at any time; the device holds
    `num_blocks - count` blocks in all. Between evenly spread blocks there is always something to compute while the next
    one is copied.

    Raises:
        UserError: fewer than SLOTS blocks would be left on the device.
    """
    if count > max(num_blocks - SLOTS, 0):
        raise UserError(
            f"blocks_to_swap: {count}, but the transformer has {num_blocks} blocks, of which {SLOTS} must be on the "
            "device",
            hint=f"use at most {max(num_blocks - SLOTS, 0)}",
        )
    if count == 0:
        return []
    swapped = count + SLOTS
    return [(2 * i + 1) * num_blocks // (2 * swapped) for i in range(swapped)]


class BlockSwap(BlockHook):
    """The swapped blocks, and the slots on the device into which they are copied.

    Args:
        blocks: frozen; each may be on the CPU or on the device. Those that are not swapped are moved to the device.
        count: the number of blocks in CPU memory at a time.
        device: where the blocks compute.
        transfers: makes the copies; None: as fits the device.

    Raises:
        UserError: `count` is too large.
    """

    def __init__(
        self, blocks: nn.ModuleList, count: int, device: torch.device | str, transfers: HostTransfers | None = None
    ) -> None:
        device = torch.device(device)
        self.indices = swapped_indices(len(blocks), count)
        """The blocks that are swapped."""
        if any(parameter.requires_grad for index in self.indices for parameter in blocks[index].parameters()):
            raise ValueError("block swap is for frozen blocks: their weights are never copied back")
        self._end = len(blocks) - 1
        self._transfers = transfers or transfers_for(device)
        self._last, self._back = -1, False  # the block that computed last, and whether in the backward pass
        # First move the swapped blocks off the device, to make room for the others.
        self._swapped = {index: _SwappedBlock(index, blocks[index], device, self._transfers) for index in self.indices}
        self._transfers.finish()
        for index, block in enumerate(blocks):
            if index not in self._swapped:
                block.to(device)
        size = max((swapped.size for swapped in self._swapped.values()), default=0)
        self.slots = [_Slot(size, device) for _ in range(SLOTS if self._swapped else 0)]
        self._slot_of = {index: self.slots[turn % SLOTS] for turn, index in enumerate(self.indices)}
        self._handles: list[RemovableHandle] = []
        for index, swapped in self._swapped.items():
            swapped.use_slot(self._slot_of[index].memory)
            self._handles.append(blocks[index].register_state_dict_post_hook(partial(swapped.add_to_state)))

    def around_blocks(self, *, recomputed: bool) -> AbstractContextManager[object]:
        """Return an empty context.

        Raises:
            ValueError: gradients are enabled without gradient checkpointing, so the weights would be gone in backward.
        """
        if torch.is_grad_enabled() and not recomputed:
            raise ValueError("block swap needs gradient_checkpointing: the backward pass needs the weights again")
        return nullcontext()

    def before_block(self, index: int) -> None:
        """Wait until the block is on the device, and begin to copy the next ones; all others are no longer needed."""
        self._back = index == self._last - 1 or index == self._last == self._end
        self._last = index
        wanted = dict.fromkeys(islice(self._next_from(index), SLOTS))
        for each in wanted:
            slot = self._slot_of[each]
            if slot.holds != each and slot.holds not in wanted:
                self._fetch(each, slot)
        if index in wanted:
            self._transfers.wait(self._slot_of[index].ticket)
            self._swapped[index].arrive()

    def remove(self) -> None:
        """Give the blocks ordinary weights again, those of the swapped blocks in CPU memory."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._transfers.finish()
        for swapped in self._swapped.values():
            swapped.stay_on_host()
        self._swapped, self._slot_of, self.slots = {}, {}, []

    def _next_from(self, index: int) -> Iterator[int]:
        """Return the swapped blocks in the order in which they will compute, from this block on."""
        if self._back:  # down to the first block, then the next forward pass
            return chain([each for each in reversed(self.indices) if each <= index], self.indices)
        onward = [each for each in self.indices if each >= index]
        return chain(onward, reversed(self.indices) if torch.is_grad_enabled() else self.indices)

    def _fetch(self, index: int, slot: _Slot) -> None:
        # In this order, so that an interruption at any point leaves an empty slot, not one with a wrong block.
        if slot.holds is not None:
            self._swapped[slot.holds].leave()
        slot.holds = None
        slot.ticket = self._transfers.begin(slot.memory, self._swapped[index].memory)
        slot.holds = index


class AbsentWeight(Tensor):
    """Stands for a weight [out, in] that is not on the device: has its shape and dtype, and raises when it is used."""

    label: str

    @staticmethod
    def __new__(cls, shape: torch.Size, dtype: torch.dtype, device: torch.device, label: str) -> AbsentWeight:
        made: AbsentWeight = Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=device, storage_size=0)
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
        if func is torch.ops.aten.detach.default:  # called by state_dict(), where a hook then puts in the weight
            return args[0]
        absent = next((each for each in args if isinstance(each, AbsentWeight)), None)
        label = absent.label if absent is not None else "a weight"
        raise RuntimeError(f"{label} is used while it is not on the device")

    def __repr__(self, *, tensor_contents: object = None) -> str:  # type: ignore[override]  # torch's is untyped
        return f"AbsentWeight({self.label}, {list(self.shape)})"


class _Slot:
    """Device memory for one swapped block."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.memory = torch.empty(size, dtype=torch.uint8, device=device)
        self.holds: int | None = None
        """The block whose weights are in this memory or are being copied into it."""
        self.ticket: Ticket | None = None


class _Packed(NamedTuple):
    """A tensor of a block: its location in its module and in packed memory."""

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
        """Return the view as a parameter or buffer for the module."""
        return nn.Parameter(self.view(memory), requires_grad=False) if self.is_parameter else self.view(memory)


class _SwappedBlock:
    """A block whose tensors, the parameters and buffers of it and its submodules, are packed on the host."""

    def __init__(self, index: int, block: nn.Module, device: torch.device, transfers: HostTransfers) -> None:
        self._packed, self.size = _pack(block)
        self._on_device: list[Tensor] = []
        self.memory = transfers.host_memory(self.size)
        for each in self._packed:
            held = each.owner[each.name]
            assert held is not None
            transfers.begin(each.view(self.memory), held.detach())
        self._absent: list[Tensor] = [
            AbsentWeight(each.shape, each.dtype, device, f"block {index}: {each.key}") for each in self._packed
        ]
        self.leave()

    def use_slot(self, slot: Tensor) -> None:
        """Set the device memory [bytes] into which the block is copied."""
        self._on_device = [each.tensor(slot) for each in self._packed]

    def arrive(self) -> None:
        """Give the modules the weights in the slot."""
        self._set(self._on_device)

    def leave(self) -> None:
        """Take the weights away from the modules."""
        self._set(self._absent)

    def stay_on_host(self) -> None:
        """Give the modules the weights on the host."""
        self._set([each.tensor(self.memory) for each in self._packed])

    def add_to_state(self, _block: nn.Module, state: dict[str, Tensor], prefix: str, _metadata: object) -> None:
        """Put the weights on the host into a state dict, as a hook on the block."""
        for each in self._packed:
            if prefix + each.key in state:
                state[prefix + each.key] = each.view(self.memory)

    def _set(self, tensors: list[Tensor]) -> None:
        for each, tensor in zip(self._packed, tensors, strict=True):
            each.owner[each.name] = tensor


def _pack(block: nn.Module) -> tuple[list[_Packed], int]:
    """Return the offsets of a block's tensors in one piece of memory, and its size in bytes."""
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
