"""The self-test on a GPU without data, at the real width: nothing mixes devices, and nothing waits for the host."""

from __future__ import annotations

import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hv15.records.selftest import Row
from hv15.selftest.run import all_checks, reports
from hv15.selftest.sizes import FULL
from hv15.selftest.stand import Stand
from tests.fake_gpu import FakeGPU

SIZES = replace(
    FULL, dit=replace(FULL.dit, num_blocks=4), text=replace(FULL.text, num_layers=4), swapped=(1, 2), large=FULL.small
)
"""Few layers of the real width stand for all."""
NO_DATA = {
    "reading of a safetensors file",
    "start of a process",
    "compile",
    "stop by a signal, resume: equal LoRA",
    "waiting for data",
    "host syncs in a training step",
    "a step that is not finite: equal LoRA",
    "NVML",
    "attention: flash",
    "attention: flash3",
    "attention: xformers",
    "attention: sage",
    "quantize: nf4: the format",
    "quantize: nf4: products",
    "training step, nf4, 832x480x25",
    "Qwen: forward and backward",
    "SigLIP: forward and backward",
    "ByT5: forward and backward",
}
"""What needs numbers, a real GPU, or a package that needs them. (Encoders of transformers: test_gpu_discipline.py.)"""


def run_all() -> tuple[Row, ...]:
    """All checks in this process."""
    make, gpu = torch.tensor, FakeGPU()
    patched: Any = torch
    patched.tensor = lambda data, device=None, **more: (
        make(data, **more) if device is None else make(data, **more).to(device)
    )
    # one look at the result at the end of the denoising loop
    patched.isfinite = lambda tensor: SimpleNamespace(all=lambda: True)
    with gpu, tempfile.TemporaryDirectory() as folder:
        stand = Stand(gpu.device, SIZES, Path(folder), has_data=False)
        *_, report = reports(stand, all_checks(stand))
    return report.rows


@pytest.mark.slow
def test_all_runs_without_data() -> None:
    # autograd has queues for those devices only that torch knows at the first backward pass
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        rows = pool.submit(run_all).result()
    wrong = [f"{row.name}: {row.state}: {row.message}" for row in rows if row.state != "ok" and row.name not in NO_DATA]
    assert not wrong, "\n".join(wrong)
    assert len(rows) > 50
