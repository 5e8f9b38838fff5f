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


def on_ranks(count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call a function of a module on each rank; return what it returns there."""
    port = free_port()
    pipes = [FORKS.Pipe(duplex=False) for _ in range(count)]
    processes = [
        FORKS.Process(target=_rank, args=(rank, count, port, sender, function, arguments))
        for rank, (_, sender) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    try:
        came = [receiver.recv_bytes() if receiver.poll(120) else pickle.dumps("nothing came") for receiver, _ in pipes]
        for process in processes:
            process.join(20)
    finally:
        for process in processes:
            process.kill()
    results = [pickle.loads(each) for each in came]
    failures = [result for result in results if isinstance(result, str)]
    assert not failures, "\n".join(failures)
    return [result[0] for result in results]


def _rank(
    rank: int, count: int, port: str, sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, RANK=str(rank), WORLD_SIZE=str(count))
    dist.init_process_group("gloo")
    try:
        # As bytes: torch would send the handles of tensors, which end with this process.
        sender.send_bytes(pickle.dumps((function(*arguments),)))
    except BaseException:
        sender.send_bytes(pickle.dumps(f"rank {rank}: {traceback.format_exc()}"))
    finally:
        dist.destroy_process_group()
