"""Several processes: the same samples, noise and steps as one process with more accumulation."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.train.world import metrics, run, settings, untimed


def test_two_processes_train_what_one_accumulates(tmp_path: Path) -> None:
    options = {"max_train_steps": 4, "state_every_n_steps": 2, "module_dropout": 0.3, "caption_dropout": 0.2}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.train.world", str(tmp_path / "two"), json.dumps(options)],
            cwd=Path(__file__).parents[2],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    errors = [process.communicate()[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    one = run(tmp_path / "one", settings(**options, gradient_accumulation_steps=2))
    alone, together = load_file(one), load_file(tmp_path / "two" / "lora.safetensors")
    assert all(torch.equal(alone[name], together[name]) for name in alone)
    assert untimed(metrics(tmp_path / "one")) == untimed(metrics(tmp_path / "two"))
