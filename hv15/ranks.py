"""Starts a command once for each GPU that works on the same video (the settings `context_parallel`). Loads no torch.

Each process is a rank and has torch's own variables, so a command that `accelerate launch` or `torchrun` has started on
several GPUs starts nothing. They are not used here, because half a minute after a request to stop they kill a training
that is still saving, and they do not return its exit code.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from hv15.gpus import LOCAL_RANK, held_locks, take_gpus

RANK, WORLD_SIZE = "RANK", "WORLD_SIZE"
"""torch's variables: the number of this process, and of all processes."""
GRACE_S = 10.0
"""How long the other ranks may live when one has failed: without it they would wait forever."""
_POLL_S = 0.05
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def is_first_rank() -> bool:
    """Whether this process is the only one or the first of several, so that it is the one that reports."""
    return os.environ.get(RANK, "0") == "0"


def run_on_ranks(count: int, device: str) -> int | None:
    """Run this process's command on `count` ranks; return its exit code, or None if this process is to run it itself.

    It is to run it itself if count is 1, or if it is a rank already.

    Args:
        count: the setting `context_parallel`.
        device: the setting `runtime.device`. On GPUs, each rank gets one of its own; else all of them share the CPU.

    Raises:
        UserError: there are not enough GPUs.
    """
    if count == 1 or WORLD_SIZE in os.environ:
        return None
    take_gpus(device, count)
    return _wait(_start(count))


def _start(count: int) -> list[subprocess.Popen[bytes]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {WORLD_SIZE: str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-m", "hv15.cli", *sys.argv[1:]]
    return [
        subprocess.Popen(
            command,
            env={**os.environ, **shared, RANK: str(rank), LOCAL_RANK: str(rank)},
            pass_fds=held_locks(),  # the GPUs stay locked until the last rank has ended
        )
        for rank in range(count)
    ]


def _wait(ranks: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait for all ranks and return the exit code of the first that failed; 0 if none did."""
    code, deadline = 0, float("inf")
    with _forwarded(ranks) as requests:
        while None in (codes := [rank.poll() for rank in ranks]):
            if not code and any(codes):
                code, deadline = next(filter(None, codes)), time.monotonic() + GRACE_S
            if time.monotonic() > deadline:
                for rank in ranks:
                    rank.kill()
            time.sleep(_POLL_S)
    code = code or next(filter(None, codes), 0)
    if code < 0 and requests:  # ended as one process would have ended
        signal.raise_signal(requests[0])
    return code if code >= 0 else 128 - code


@contextmanager
def _forwarded(ranks: Sequence[subprocess.Popen[bytes]]) -> Iterator[list[signal.Signals]]:
    """Forward requests to stop and to save; yield the signals that came.

    A request may reach the ranks, too (Ctrl-C does). Only SIGHUP is harmless if it comes twice, so it stands for all.
    """
    requests: list[signal.Signals] = []

    def send(number: signal.Signals) -> None:
        for rank in ranks:
            if rank.poll() is None:
                rank.send_signal(number)

    def stop(number: int, frame: FrameType | None) -> None:
        repeated = any(each != signal.SIGHUP for each in requests) and number != signal.SIGHUP
        requests.append(signal.Signals(number))
        send(signal.SIGKILL if repeated else signal.SIGHUP)

    handlers = {number: signal.signal(number, stop) for number in _STOPPING}
    handlers[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, lambda number, frame: send(signal.SIGUSR1))
    try:
        yield requests
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
