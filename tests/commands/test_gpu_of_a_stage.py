"""Each stage that computes with a model takes a free GPU before torch looks for one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hv15 import gpus, precision
from hv15.gpus import VISIBLE
from hv15.plan.stages import StagePlanner
from tests.commands.workbench import LORA, Workbench

STAGES: dict[str, tuple[str, ...]] = {
    "encode latents": (),
    "encode texts": (),
    "train": ("--out", "results/other.safetensors"),
    "stage condition": ("--name", "one", "--out", "first.safetensors"),
    "stage denoise": ("--name", "one", "--lora", LORA, "--out", "other.latents.safetensors"),
    "stage decode": ("--latents", "results/samples/one.latents.safetensors", "--out", "other.mp4"),
}


@pytest.fixture
def busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with two GPUs, of which another job has the first."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv(VISIBLE, "0,1")
    monkeypatch.setattr(gpus, "_held", others := list[int]())
    assert gpus._lock("0")
    monkeypatch.setattr(gpus, "_held", own := list[int]())
    yield
    for descriptor in (*others, *own):
        os.close(descriptor)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_takes_the_free_gpu(done: Workbench, busy: None, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    picked = precision.pick_device

    def pick_device(name: str) -> object:
        seen.append(os.environ[VISIBLE])
        return picked(name)

    if stage == "stage condition":
        Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(done.root / "first.png")
        models = Path(done.config["models"]["vae"]).parent
        done.set(
            task="i2v",
            models={"image_encoder": str(models / "siglip.safetensors")},
            sample={"prompts": [{"name": "one", "prompt": "a red circle", "image_path": "first.png"}]},
        )
    if stage == "train":
        done.set(train={"seed": 3})
    monkeypatch.chdir(done.root)
    for place in (
        "hv15.precision",
        "hv15.train.run",
        "hv15.sample.condition",
        "hv15.sample.sampler",
        "hv15.sample.decode",
    ):
        monkeypatch.setattr(f"{place}.pick_device", pick_device, raising=False)
    done.does(*stage.split(), *STAGES[stage])
    assert set(seen) == {"1"}
    assert os.environ[VISIBLE] == "1"


def test_texts_that_are_encoded_on_the_cpu_need_none(done: Workbench, busy: None) -> None:
    done.set(cache={"text_encoder_cpu": True})
    done.does("encode", "texts")
    assert os.environ[VISIBLE] == "0,1"


def test_a_check_and_a_plan_take_none(done: Workbench, busy: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StagePlanner, "names", ["encode texts"])
    done.does("check")
    done.does("plan")
    assert os.environ[VISIBLE] == "0,1"
