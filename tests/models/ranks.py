"""Runs a function of a test in several processes that reach one another, as GPUs of one machine would."""

from __future__ import annotations

import os
import pickle
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch._dynamo  # torch's optimizers import it when they are first used: here, once for all ranks
import torch.distributed as dist

from tests.forked import FORKS


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


class Ranks:
    """So many processes, which call one function after the other: to start them takes longer than most calls."""

    def __init__(self, count: int) -> None:
        port, pipes = free_port(), [FORKS.Pipe() for _ in range(count)]
        self.pipes = [ours for ours, _ in pipes]
        self.processes = [
            FORKS.Process(target=_rank, args=(rank, count, port, theirs), daemon=True)
            for rank, (_, theirs) in enumerate(pipes)
        ]
        for process, (_, theirs) in zip(self.processes, pipes, strict=True):
            process.start()
            theirs.close()

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> list[Any]:
        """Return what each returns, as a tuple of one, or says of its failure."""
        for pipe in self.pipes:
            pipe.send((function, arguments))
        return [self._answer(pipe) for pipe in self.pipes]

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()

    def _answer(self, pipe: Connection) -> Any:
        try:
            return pickle.loads(pipe.recv_bytes()) if pipe.poll(120) else "nothing came"
        except EOFError:
            return "a rank has ended"


_started: dict[int, Ranks] = {}


def on_ranks(count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call a function of a module on each rank; return what it returns there.

    The processes stay for the next call with as many, unless one fails. What a function changes beside its own objects
    it has to restore.
    """
    if count not in _started:
        _started[count] = Ranks(count)
    results = _started[count].call(function, arguments)
    failures = [result for result in results if isinstance(result, str)]
    if failures:
        _started.pop(count).end()
    assert not failures, "\n".join(failures)
    return [result[0] for result in results]


def _rank(rank: int, count: int, port: str, pipe: Connection) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, RANK=str(rank), WORLD_SIZE=str(count))
    dist.init_process_group("gloo")
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:  # the tests have ended
            break
        torch.manual_seed(0)
        try:
            # As bytes: torch would send the handles of tensors, which end with this process.
            pipe.send_bytes(pickle.dumps((function(*arguments),)))
        except BaseException:
            pipe.send_bytes(pickle.dumps(f"rank {rank}: {traceback.format_exc()}"))
    dist.destroy_process_group()
