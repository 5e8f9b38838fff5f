"""What the commands say about the checkpoint: which one it is, its sampling defaults, and unusual uses of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hv15.models import load_dit
from tests.commands.workbench import LORA, Workbench


def dit_of(bench: Workbench) -> Path:
    return Path(bench.config["models"]["dit"])


def denoise(bench: Workbench) -> tuple[str | Path, ...]:
    out = bench.samples / "another.safetensors"
    return "stage", "denoise", "--name", "one", "--lora", bench.root / LORA, "--out", out


def test_the_checkpoint_and_its_defaults_are_told(done: Workbench, caplog: pytest.LogCaptureFixture) -> None:
    path = done.root / "720p_i2v_distilled" / "model.safetensors"
    path.parent.mkdir()
    shutil.copy(dit_of(done), path)
    done.set(models={"dit": str(path)})
    line = "checkpoint 720p_i2v_distilled (from its path: 720p_i2v_distilled); sampling defaults: guidance 1, shift 7"
    assert line in done.does("check").out
    done.does("train", "--out", done.root / "results/another.safetensors")
    assert line in caplog.text
    assert "note: training on 720p_i2v_distilled undoes its distillation" in caplog.text
    assert "note: task is t2v, but 720p_i2v_distilled was made for i2v" in caplog.text
    done.set(models={"variant": "480p_t2v"})
    said = done.does("check").out
    assert "checkpoint 480p_t2v (set by models.variant); sampling defaults: guidance 6, shift 5, 50 steps" in said
    assert "note: models.variant says 480p_t2v, but the file is 720p_i2v_distilled" in said


def test_samples_and_loras_that_do_not_fit_are_noted(done: Workbench, caplog: pytest.LogCaptureFixture) -> None:
    tensors = load_file(done.root / LORA)
    with safe_open(done.root / LORA, framework="pt") as file:
        metadata = file.metadata() | {"hv15.task": "i2v"}
    save_file(tensors, done.root / "other.safetensors", metadata)
    done.set(models={"variant": "480p_t2v_distilled"}, sample={"loras": [{"path": "other.safetensors"}]})
    done.set(sample={"infer_steps": 3, "guidance_scale": 6.0})
    said = done.does("check").out
    done.does(*denoise(done))
    for words in (
        "guidance_scale 6: 480p_t2v_distilled was distilled for a guidance of 1",
        "infer_steps 3: 480p_t2v_distilled: CFG-distilled: it needs all 50 steps",
        "other.safetensors was trained for i2v",
    ):
        assert words in said
        assert words in caplog.text


@pytest.mark.slow
def test_a_file_in_float8_is_sampled_and_told_how_it_is_held(done: Workbench, caplog: pytest.LogCaptureFixture) -> None:
    """Scaled by the largest number of each weight, in the spelling that marks the file."""
    scaled: dict[str, torch.Tensor] = {"scaled_fp8": torch.empty(0, dtype=torch.float8_e4m3fn)}
    for key, value in load_dit(dit_of(done)).state_dict().items():
        scaled[key] = value.bfloat16().contiguous()
        if key.startswith("double_blocks.") and value.ndim == 2:
            scale = value.float().abs().max() / 448
            scaled[key] = (value / scale).to(torch.float8_e4m3fn)
            scaled[key.removesuffix("weight") + "scale_weight"] = scale
    with safe_open(dit_of(done), framework="pt") as file:
        save_file(scaled, done.root / "fp8.safetensors", file.metadata())
    done.set(models={"dit": str(done.root / "fp8.safetensors")})
    checked = done.does("check").out
    assert "official layout, float8_e4m3fn (float8 with scales)" in checked
    assert "train.quantize: none expands it" in checked
    done.does(*denoise(done))
    assert "note: the file is in float8, and sample.quantize: none expands it" in caplog.text
    assert (done.samples / "another.safetensors").is_file()
    said = done.does("merge", "--lora", done.root / LORA, "--out", done.root / "merged.safetensors")
    assert "its float8 weights were written in the number format of the others" in said.err


def test_a_merged_file_says_what_it_was_made_from(done: Workbench) -> None:
    said = done.does("merge", "--lora", done.root / LORA, "--out", done.root / "merged.safetensors")
    assert "merged.safetensors: official layout, bfloat16, " in said.err
    with safe_open(done.root / "merged.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["hv15.merged"])[0]["file"] == Path(LORA).name
    assert json.loads(metadata["hv15.merged.base"])["file"] == dit_of(done).name
