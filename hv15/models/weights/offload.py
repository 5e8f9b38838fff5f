"""Moves the tensors that gradient checkpointing keeps to CPU memory until the backward pass needs them.

It uses torch's hooks for saved tensors. At 720p x 121 frames a block keeps 0.43 GiB, so 23 GiB in all.
"""

from __future__ import annotations

import weakref
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from hv15.models.weights.block_hooks import BlockHook
from hv15.models.weights.no_data import has_no_data
from hv15.models.weights.transfers import HostTransfers, Ticket, transfers_for

LEAST = 2**20
"""Bytes; smaller tensors are not worth a copy."""


class ActivationOffload(BlockHook):
    """Copies tensors that autograd keeps to CPU memory, and back when they are needed.

    The copy back of a block's tensors begins during the backward pass of the block after it, or else when needed.
    """

    def __init__(self, device: torch.device | str, transfers: HostTransfers | None = None) -> None:
        self._transfers = transfers or transfers_for(device)
        self._free: list[Tensor] = []
        """Host memory to reuse, because the same sizes recur in a dataset."""
        self._latest: weakref.ref[_Kept] | None = None
        self._next: weakref.ref[_Kept] | None = None
        """The tensor that the backward pass will need next."""

    def around_blocks(self, *, recomputed: bool) -> AbstractContextManager[object]:
        """Return a context in which the tensors that gradient checkpointing keeps are moved; without it, none are."""
        if not recomputed:
            return nullcontext()
        return torch.autograd.graph.saved_tensors_hooks(self._to_host, self._to_device)

    def after_attention_backward(self, index: int) -> None:
        """Begin to copy back the kept tensors of the previous block."""
        kept = self._next() if self._next is not None else None
        if kept is not None and kept.host is not None and kept.device_copy is None:
            self._fetch(kept)

    def _to_host(self, tensor: Tensor) -> Tensor | _Kept:
        if tensor.nbytes < LEAST:
            return tensor
        kept = _Kept(self, tensor, self._latest)
        self._latest = weakref.ref(kept)
        if not has_no_data(tensor):
            kept.host = self._host_memory(tensor.nbytes)
            kept.ticket = self._transfers.begin(kept.host_view(), tensor)
        return kept

    def _to_device(self, kept: Tensor | _Kept) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        if kept.device_copy is None:
            self._fetch(kept)
        tensor, kept.device_copy = kept.device_copy, None
        assert tensor is not None
        self._transfers.wait(kept.ticket)
        self._next = kept.before
        return tensor

    def _fetch(self, kept: _Kept) -> None:
        kept.device_copy = torch.empty(kept.shape, dtype=kept.dtype, device=kept.device)
        if kept.host is not None:
            kept.ticket = self._transfers.begin(kept.device_copy, kept.host_view())

    def _host_memory(self, size: int) -> Tensor:
        fitting = [memory for memory in self._free if memory.nbytes >= size]
        if fitting:
            smallest = min(fitting, key=lambda memory: memory.nbytes)
            self._free = [memory for memory in self._free if memory is not smallest]
            return smallest
        if self._free:  # free a smaller piece first, so that the total never exceeds what the largest size needs
            self._transfers.finish()
            self._free.sort(key=lambda memory: memory.nbytes)
            del self._free[0]
        return self._transfers.host_memory(size)

    def reuse(self, memory: Tensor) -> None:
        """Take back host memory [bytes] of a tensor that is no longer needed."""
        self._free.append(memory)


class _Kept:
    """A tensor that was moved to host memory."""

    def __init__(self, owner: ActivationOffload, tensor: Tensor, before: weakref.ref[_Kept] | None) -> None:
        self.owner, self.before = owner, before
        self.shape, self.dtype, self.device = tensor.shape, tensor.dtype, tensor.device
        self.host: Tensor | None = None
        self.ticket: Ticket | None = None
        self.device_copy: Tensor | None = None

    def host_view(self) -> Tensor:
        assert self.host is not None
        return self.host[: self.shape.numel() * self.dtype.itemsize].view(self.dtype).view(self.shape)

    def __del__(self) -> None:
        if self.host is not None:
            self.owner.reuse(self.host)
