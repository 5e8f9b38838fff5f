"""Copies between CPU memory and the device while the model runs, for block swap and activation offload.

`begin` starts a copy and `wait` waits for it. On a GPU neither blocks the program: copies run on their own stream
in parallel to the computation, and only the GPU waits. Elsewhere a copy is complete when `begin` returns.
"""

from __future__ import annotations

import logging
import weakref

import torch
from torch import Tensor

log = logging.getLogger(__name__)


Ticket = torch.cuda.Event
"""A copy that has begun."""


class HostTransfers:
    """Copies immediately, for when the device is the CPU or a device without data (planning, tests)."""

    def host_memory(self, size: int) -> Tensor:
        """Return CPU memory, uint8 [size], for long-term use."""
        return torch.empty(size, dtype=torch.uint8, device="cpu")

    def begin(self, target: Tensor, source: Tensor) -> Ticket | None:
        """Begin a copy between tensors of the same shape, after everything that is already queued on the device.

        Do not use either tensor until `wait` was called.
        """
        if not source.is_meta:
            target.copy_(source)
        return None

    def wait(self, ticket: Ticket | None) -> None:
        """Make everything that is queued from now on wait for the copy."""

    def finish(self) -> None:
        """Block until all copies are complete."""


class CudaTransfers(HostTransfers):
    """Copies on a second stream of one GPU, from and to pinned memory."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)

    def host_memory(self, size: int) -> Tensor:
        """Return pinned memory, uint8 [size], of exactly this size: torch's allocator rounds up to a power of two."""
        memory = super().host_memory(size)
        if _pin(memory):
            weakref.finalize(memory.untyped_storage(), _unpin, memory.data_ptr())
        return memory

    def begin(self, target: Tensor, source: Tensor) -> Ticket | None:
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            target.copy_(source, non_blocking=True)
            for tensor in (target, source):
                if tensor.is_cuda:  # otherwise its memory could be reused before the copy has run
                    tensor.record_stream(self.stream)
            ticket: Ticket = self.stream.record_event()
            return ticket

    def wait(self, ticket: Ticket | None) -> None:
        if ticket is not None:
            torch.cuda.current_stream(self.device).wait_event(ticket)

    def finish(self) -> None:
        self.stream.synchronize()


def transfers_for(device: torch.device | str) -> HostTransfers:
    """Return the transfers for a device."""
    device = torch.device(device)
    return CudaTransfers(device) if device.type == "cuda" else HostTransfers()


def _pin(memory: Tensor) -> bool:
    """Pin memory for the GPU; return False if the system allows no more, in which case copies are slower."""
    result = torch.cuda.cudart().cudaHostRegister(memory.data_ptr(), memory.nbytes, 0)
    if int(result) != 0:
        log.warning(
            "%.1f GiB of memory cannot be pinned (%s): copies to the GPU are slower", memory.nbytes / 2**30, result
        )
    return int(result) == 0


def _unpin(address: int) -> None:
    torch.cuda.cudart().cudaHostUnregister(address)
