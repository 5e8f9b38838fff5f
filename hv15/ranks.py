"""Starts a command once for each GPU that works on the same step, on one machine or on several. Loads no torch.

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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

from hv15.gpus import LOCAL_RANK, held_locks, take_gpus
from hv15.machines import MASTER_ADDR, MASTER_PORT, Machine, on_every_node, outside_a_step, this_machine

RANK, WORLD_SIZE = "RANK", "WORLD_SIZE"
"""torch's variables: the number of this process, and of all processes."""
VOICE = "HV15_VOICE"
"""Names a rank's open file with one byte in it, for all ranks of a machine together: who reads it may speak."""
GRACE_S = 10.0
"""How long the other ranks may live when one has failed: without it they would wait forever."""
_POLL_S = 0.05
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def is_first_rank() -> bool:
    """Whether this process is the only one or the first of several, so that it is the one that reports."""
    return os.environ.get(RANK, "0") == "0"


def is_rank() -> bool:
    """Whether this process is one of several."""
    return WORLD_SIZE in os.environ


def may_speak() -> bool:
    """Whether this process may say why it ends. Of several ranks one may: the others fail for the same reason."""
    voice = os.environ.get(VOICE, "")
    if not voice.isdecimal():
        return True
    try:
        return bool(os.read(int(voice), 1))  # nothing is left if another rank has read it
    except OSError:  # it is not open in this process
        return True


def run_on_ranks(count: int, device: str, setting: str, *, machines: int = 1) -> int | None:
    """Run this process's command on `count` ranks; return its exit code, or None if this process is to run it itself.

    It is to run it itself if count is 1, or if it is a rank already.

    Args:
        count: on all machines together; divisible by `machines`.
        device: the setting `runtime.device`. On GPUs, each rank gets one of its own; else all of them share the CPU.
        setting: what asks for so many, for messages: "sample.context_parallel is 2".

    Raises:
        UserError: there are not enough GPUs, or the machines do not know of each other.
    """
    if count == 1 or is_rank():
        return None
    command = [sys.executable, "-P", "-m", "hv15.cli", *sys.argv[1:]]
    machine = Machine(0, "127.0.0.1", _free_port()) if machines == 1 else this_machine(machines)
    if machine is None:
        return _wait([subprocess.Popen(on_every_node(machines, command), env=outside_a_step())])
    here = count // machines
    take_gpus(device, here, setting)
    return _wait(_start(command, machine, here, count))


def run_here(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run another command to its end and return its exit code; requests to stop and to save are passed on to it."""
    return _wait([subprocess.Popen(command, env=environment)])


def _start(command: Sequence[str], machine: Machine, here: int, count: int) -> list[subprocess.Popen[bytes]]:
    shared = {WORLD_SIZE: str(count), MASTER_ADDR: machine.address, MASTER_PORT: str(machine.port)}
    first = machine.number * here
    voice, filled = os.pipe()
    os.write(filled, b"1")
    os.close(filled)
    started = [
        subprocess.Popen(
            command,
            env={**os.environ, **shared, RANK: str(first + rank), LOCAL_RANK: str(rank), VOICE: str(voice)},
            pass_fds=(voice, *held_locks()),  # the GPUs stay locked until the last rank has ended
        )
        for rank in range(here)
    ]
    os.close(voice)
    return started


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


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
