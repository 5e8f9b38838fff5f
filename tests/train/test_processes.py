"""Several processes: the same samples, noise and steps as one process with more accumulation; they decide together."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from hv15.train.signals import EXIT_RESUMABLE
from tests.train.world import metrics, run, settings, untimed


@contextmanager
def two_processes(folder: Path, options: dict[str, Any]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Train on two processes, which end with the block at the latest."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.train.world", str(folder), json.dumps(options)],
            cwd=Path(__file__).parents[2],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=(folder.with_name(f"{folder.name}-{rank}.log")).open("wb"),
        )
        for rank in range(2)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def logs(folder: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in sorted(folder.parent.glob(f"{folder.name}-*.log")))


def test_two_processes_train_what_one_accumulates(tmp_path: Path) -> None:
    options = {"max_train_steps": 4, "state_every_n_steps": 2, "module_dropout": 0.3, "caption_dropout": 0.2}
    with two_processes(tmp_path / "two", options) as processes:
        assert [process.wait(300) for process in processes] == [0, 0], logs(tmp_path / "two")
    one = run(tmp_path / "one", settings(**options, gradient_accumulation_steps=2))
    alone, together = load_file(one), load_file(tmp_path / "two" / "lora.safetensors")
    assert all(torch.equal(alone[name], together[name]) for name in alone)
    assert untimed(metrics(tmp_path / "one")) == untimed(metrics(tmp_path / "two"))


def test_a_signal_to_one_process_is_for_all(tmp_path: Path) -> None:
    """Save, then stop, each requested from the process that does not write: the other one saves, and both stop."""
    folder = tmp_path / "two"
    states = folder / "train" / "state"
    with two_processes(folder, {"max_train_steps": 1_000_000, "state_every_n_steps": 1_000_000}) as processes:

        def wait_for(what: Callable[[], bool]) -> None:
            end = time.monotonic() + 300
            while not what():
                assert [process.poll() for process in processes] == [None, None], logs(folder)
                assert time.monotonic() < end, logs(folder)
                time.sleep(0.02)

        wait_for(lambda: (folder / "train" / "metrics.jsonl").exists() and bool(metrics(folder)))
        processes[1].send_signal(signal.SIGUSR1)
        wait_for(lambda: any(states.glob("step-*")))
        saved = {path.name for path in states.glob("step-*")}
        processes[1].send_signal(signal.SIGTERM)
        assert [process.wait(300) for process in processes] == [EXIT_RESUMABLE] * 2, logs(folder)
    assert len({path.name for path in states.glob("step-*")} - saved) == 1
    assert not (folder / "lora.safetensors").exists()
