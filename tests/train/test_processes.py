"""Several processes: the same samples, noise and steps as one process with more accumulation; they decide together."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from hv15.errors import UserError
from hv15.train.signals import EXIT_RESUMABLE
from tests.forked import forked
from tests.models.ranks import free_port
from tests.train.world import HELD_OUT, aimed, metrics, run, settings, tiny_stores, untimed, varied

VALIDATED: dict[str, Any] = {"validation": {"fraction": 0.1, "every_n_steps": 2, "samples": 4, "at_first": True}}
"""Its eight measurements do not divide evenly among three processes."""


@contextmanager
def started(folder: Path, options: dict[str, Any], count: int = 2) -> Iterator[list[BaseProcess]]:
    """Train on several processes, which end with the block at the latest."""
    places = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "OMP_NUM_THREADS": "1"}
    processes = []
    for rank in range(count):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        with (folder.with_name(f"{folder.name}-{rank}.log")).open("wb") as log:
            processes.append(forked(train, folder, options, stderr=log.fileno(), **places, **own))
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.join()


def train(folder: Path, options: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    trained(folder, **options)


def trained(folder: Path, **options: Any) -> Path:
    """Train on clips with texts to draw and a weight, of datasets that begin and end, with masks, as regularisation."""
    items, stores = tiny_stores(folder / "cache", 8)
    trained, stores = aimed(varied(items[HELD_OUT:]), stores, folder / "cache")
    return run(folder, settings(**options), data=([*items[:HELD_OUT], *trained], stores))


def ended(processes: list[BaseProcess]) -> list[int | None]:
    """Wait for the processes, and return their exit codes."""
    for process in processes:
        process.join(300)
    return [process.exitcode for process in processes]


def logs(folder: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in sorted(folder.parent.glob(f"{folder.name}-*.log")))


def test_two_processes_train_what_one_accumulates(tmp_path: Path) -> None:
    options = {"max_train_steps": 4, "state_every_n_steps": 2, "module_dropout": 0.3, "caption_dropout": 0.2}
    options |= VALIDATED
    with started(tmp_path / "two", options | {"num_processes": 2}) as processes:
        assert ended(processes) == [0, 0], logs(tmp_path / "two")
    one = trained(tmp_path / "one", **options, gradient_accumulation_steps=2)
    alone, together = load_file(one), load_file(tmp_path / "two" / "lora.safetensors")
    assert all(torch.equal(alone[name], together[name]) for name in alone)
    for kind in ("step", "validation"):
        assert untimed(metrics(tmp_path / "one", kind)) == untimed(metrics(tmp_path / "two", kind))


@pytest.mark.slow
def test_three_processes_train_what_one_accumulates(tmp_path: Path) -> None:
    """The sums of three have an order of their own."""
    options = {"max_train_steps": 2, "module_dropout": 0.3, "caption_dropout": 0.2, **VALIDATED}
    with started(tmp_path / "three", options | {"num_processes": 3}, 3) as processes:
        assert ended(processes) == [0, 0, 0], logs(tmp_path / "three")
    one = load_file(trained(tmp_path / "one", **options, gradient_accumulation_steps=3))
    three = load_file(tmp_path / "three" / "lora.safetensors")
    for name, tensor in one.items():
        assert_close(three[name], tensor, atol=1e-5, rtol=1e-4)
    for expected, found in zip(metrics(tmp_path / "one"), metrics(tmp_path / "three"), strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)
        assert found["epoch"] == expected["epoch"]


@pytest.mark.slow
def test_a_training_resumes_on_another_number_of_processes(tmp_path: Path) -> None:
    """Six batches a step, on three processes, then on two: the same as on one, up to the order of sums."""
    folder = tmp_path / "some"
    options = {"max_train_steps": 3, "state_every_n_steps": 2, "module_dropout": 0.3, **VALIDATED}
    for count in (3, 2):
        divided = {"num_processes": count, "gradient_accumulation_steps": 6 // count}
        with started(folder, options | divided, count) as processes:
            assert ended(processes) == [0] * count, logs(folder)
        if count == 3:  # as if it had been killed in its last step
            shutil.rmtree(folder / "train" / "state" / "step-000003")
            (folder / "lora.safetensors").unlink()
    assert [record["step"] for record in metrics(folder, "start")] == [0, 2]
    one = load_file(trained(tmp_path / "one", **options, gradient_accumulation_steps=6))
    some = load_file(folder / "lora.safetensors")
    for name, tensor in one.items():
        assert_close(some[name], tensor, atol=1e-5, rtol=1e-4)
    alone, divided = (metrics(tmp_path / name, "validation") for name in ("one", "some"))
    assert untimed(divided)[0] == untimed(alone)[0]
    assert divided[1]["loss_by_quantile"] == pytest.approx(alone[1]["loss_by_quantile"], rel=1e-4)


def test_a_launcher_that_starts_another_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"1 processes were started, but train.num_processes \(2\)") as error:
        run(tmp_path, settings(num_processes=2))
    assert "hv15 train" in (error.value.hint or "")


@pytest.mark.parametrize("kind", [pytest.param("lora", marks=pytest.mark.slow), "dora"])
def test_a_divided_base_trains_the_same(tmp_path: Path, kind: str) -> None:
    """Each process holds a half of every block; a DoRA needs the norms of whole rows."""
    options = {"network_type": kind, "max_train_steps": 3, "module_dropout": 0.3, "gradient_checkpointing": True}
    options |= {"validation": {**VALIDATED["validation"], "samples": 9, "keep_best": True}}
    with started(tmp_path / "divided", options | {"num_processes": 2, "shard_base": True}) as processes:
        assert ended(processes) == [0, 0], logs(tmp_path / "divided")
    one = load_file(trained(tmp_path / "one", **options, gradient_accumulation_steps=2))
    divided = load_file(tmp_path / "divided" / "lora.safetensors")
    assert all(torch.equal(one[name], divided[name]) for name in one)
    assert untimed(metrics(tmp_path / "one", "validation")) == untimed(metrics(tmp_path / "divided", "validation"))
    assert (tmp_path / "divided" / "train" / "checkpoints" / "best.safetensors").exists()


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_ranks_that_share_batches_train_what_one_process_trains(count: int, tmp_path: Path) -> None:
    """One group of two ranks; two groups, each with batches of its own. What is recorded counts each sample once."""
    options = {"max_train_steps": 3, "state_every_n_steps": 2, "module_dropout": 0.3, "gradient_checkpointing": True}
    options |= VALIDATED
    ranks = {"context_parallel": 2, "num_processes": count // 2}
    with started(tmp_path / "shared", options | ranks, count) as processes:
        assert ended(processes) == [0] * count, logs(tmp_path / "shared")
    one = trained(tmp_path / "one", **options, gradient_accumulation_steps=count // 2)
    alone, together = load_file(one), load_file(tmp_path / "shared" / "lora.safetensors")
    assert alone.keys() == together.keys()
    for name, tensor in alone.items():
        assert_close(together[name], tensor, atol=1e-4, rtol=1e-3)
    for expected, found in zip(metrics(tmp_path / "one"), metrics(tmp_path / "shared"), strict=True):
        assert expected["tokens_per_s"] * expected["step_s"] == pytest.approx(
            found["tokens_per_s"] * found["step_s"], rel=0.05
        )
        for name in ("step", "epoch", "loss", "lr", "grad_norm", "loss_by_sigma"):
            assert found[name] == pytest.approx(expected[name], rel=1e-4), name
    both = (metrics(tmp_path / name, "validation") for name in ("one", "shared"))
    for expected, found in zip(*both, strict=True):
        for name in ("step", "loss", "trained_loss", "loss_by_quantile"):
            assert found[name] == pytest.approx(expected[name], rel=1e-4), name


def test_a_signal_to_one_process_is_for_all(tmp_path: Path) -> None:
    """Save, then stop, each requested from the process that does not write: the other one saves, and both stop."""
    folder = tmp_path / "two"
    states = folder / "train" / "state"
    options = {"max_train_steps": 1_000_000, "state_every_n_steps": 1_000_000, "num_processes": 2}
    with started(folder, options) as processes:
        pid = processes[1].pid
        assert pid is not None

        def wait_for(what: Callable[[], bool]) -> None:
            end = time.monotonic() + 300
            while not what():
                assert [process.exitcode for process in processes] == [None, None], logs(folder)
                assert time.monotonic() < end, logs(folder)
                time.sleep(0.02)

        wait_for(lambda: (folder / "train" / "metrics.jsonl").exists() and bool(metrics(folder)))
        os.kill(pid, signal.SIGUSR1)
        wait_for(lambda: any(states.glob("step-*")))
        saved = {path.name for path in states.glob("step-*")}
        os.kill(pid, signal.SIGTERM)
        assert ended(processes) == [EXIT_RESUMABLE] * 2, logs(folder)
    assert len({path.name for path in states.glob("step-*")} - saved) == 1
    assert not (folder / "lora.safetensors").exists()
