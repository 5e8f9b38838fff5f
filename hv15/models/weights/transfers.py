"""Copies between the machine's memory and the device while the model runs, for block swap and activation offload.

A copy is begun, and whoever needs its result waits for it. On a GPU neither stops the program: copies run on a stream
of their own beside the computation, and waiting means that the GPU waits. Elsewhere a copy is finished when `begin`
returns.
"""

from __future__ import annotations

import logging
import weakref

import torch
from torch import Tensor

log = logging.getLogger(__name__)


Ticket = torch.cuda.Event
"""A copy that was begun."""


class HostTransfers:
    """Copies at once: the device is the CPU itself, or one without data (planning, tests)."""

    def host_memory(self, size: int) -> Tensor:
        """Return memory of the machine, uint8 [size], to be kept for long."""
        return torch.empty(size, dtype=torch.uint8, device="cpu")

    def begin(self, target: Tensor, source: Tensor) -> Ticket | None:
        """Copy between tensors of one shape, after all that was queued before on the device.

        Until the copy is waited for, leave both alone.
        """
        if not source.is_meta:  # it has nothing to give
            target.copy_(source)
        return None

    def wait(self, ticket: Ticket | None) -> None:
        """Let what is queued from now on come after the copy."""

    def finish(self) -> None:
        """Wait, on the host, until all copies are done."""


class CudaTransfers(HostTransfers):
    """Copies on a second stream of one GPU, from and to pinned memory."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)

    def host_memory(self, size: int) -> Tensor:
        """Return pinned memory, uint8 [size], exactly: torch's own allocator rounds up to a power of two."""
        memory = super().host_memory(size)
        if _pin(memory):
            weakref.finalize(memory.untyped_storage(), _unpin, memory.data_ptr())
        return memory

    def begin(self, target: Tensor, source: Tensor) -> Ticket | None:
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            target.copy_(source, non_blocking=True)
            for tensor in (target, source):
                if tensor.is_cuda:  # its memory may be given away before the copy has run
                    tensor.record_stream(self.stream)
            ticket: Ticket = self.stream.record_event()
            return ticket

    def wait(self, ticket: Ticket | None) -> None:
        if ticket is not None:
            torch.cuda.current_stream(self.device).wait_event(ticket)

    def finish(self) -> None:
        self.stream.synchronize()


def transfers_for(device: torch.device | str) -> HostTransfers:
    """Return the way of copying to and from a device."""
    device = torch.device(device)
    return CudaTransfers(device) if device.type == "cuda" else HostTransfers()


def _pin(memory: Tensor) -> bool:
    """Lock memory in place for the GPU; False where the system allows no more of it: copies are slower then."""
    result = torch.cuda.cudart().cudaHostRegister(memory.data_ptr(), memory.nbytes, 0)
    if int(result) != 0:
        log.warning(
            "%.1f GiB of memory cannot be pinned (%s): copies to the GPU are slower", memory.nbytes / 2**30, result
        )
    return int(result) == 0


def _unpin(address: int) -> None:
    torch.cuda.cudart().cudaHostUnregister(address)
