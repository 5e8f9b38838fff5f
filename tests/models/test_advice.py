"""What is said about choices that work and are seldom meant, and that nothing is said about usual ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hv15.models.advice import about_checkpoint, about_lora, about_memory, about_sample, about_sizes, about_training
from hv15.models.facts import CheckpointFacts
from hv15.models.variants import VARIANTS, FoundVariant

HD = {480: (480, 848), 720: (720, 1280)}


def facts(name: str = "480p_t2v", source: Any = "path", *, detail: str = "", unknown: str = "", **changes: Any) -> Any:
    found = FoundVariant(name, source, detail, unknown)
    fields: dict[str, Any] = {
        "path": Path("x.safetensors"),
        "model": "the HunyuanVideo 1.5 transformer",
        "layout": "official",
        "dtype": "bfloat16",
        "quantisation": "none",
        "meanflow": found.variant.step_distilled,
        "super_resolution": False,
        "parameters": 1,
        "size": 2,
        "files": 1,
        "variant": found,
        "detected": found if source in ("path", "config.json") else None,
    }
    return CheckpointFacts(**(fields | changes))


@pytest.mark.parametrize("name", VARIANTS)
def test_nothing_is_said_about_a_checkpoint_used_as_it_was_made(name: str):
    variant = VARIANTS[name]
    sentences = about_checkpoint(facts(name), variant.task)
    assert len(sentences) == variant.sparse
    height, width = HD[variant.resolution]
    sample = {"steps": variant.infer_steps, "guidance_scale": variant.guidance_scale}
    assert about_sample(variant, height=height, width=width, **sample) == []
    assert about_sizes(variant, {(height, width): 3, (width, height): 2}) == []
    assert len(about_training(facts(name), "none")) == variant.distilled
    assert about_lora("a.safetensors", {"hv15.task": variant.task}, variant) == []


def test_a_sparse_checkpoint_runs_dense():
    (sentence,) = about_checkpoint(facts("720p_i2v_distilled_sparse"), "i2v")
    assert "dense attention" in sentence
    assert "720p_i2v_distilled is its counterpart" in sentence


def test_a_guess_says_how_to_be_sure():
    (sentence,) = about_checkpoint(facts("480p_i2v", "default"), "i2v")
    assert "480p_i2v is a guess: set models.variant" in sentence


def test_another_task():
    (sentence,) = about_checkpoint(facts("720p_i2v"), "t2v")
    assert "task is t2v, but 720p_i2v was made for i2v" in sentence


def test_a_setting_against_the_file_name():
    detected = FoundVariant("480p_t2v", "path", "480p_t2v.safetensors")
    (sentence,) = about_checkpoint(facts("720p_t2v", "models.variant", detected=detected), "t2v")
    assert "models.variant says 720p_t2v, but the file is 480p_t2v" in sentence


def test_names_that_are_not_published_take_the_next_of_kin():
    (sentence,) = about_checkpoint(facts("480p_t2v_distilled", unknown="480p_t2v_step_distilled"), "t2v")
    assert "480p_t2v_step_distilled is not a published checkpoint" in sentence
    assert "guidance 1, shift 5, 50 steps" in sentence


def test_tensors_against_the_name():
    (sentence,) = about_checkpoint(facts("480p_i2v", meanflow=True), "i2v")
    assert "has the time_r_in tensors of a step-distilled checkpoint" in sentence
    (sentence,) = about_checkpoint(facts("480p_i2v_step_distilled", meanflow=False), "i2v")
    assert "has no time_r_in tensors" in sentence


def test_float8_without_scales():
    (sentence,) = about_checkpoint(facts(quantisation="fp8", dtype="float8_e4m3fn"), "t2v")
    assert "coarsest" in sentence
    assert about_checkpoint(facts(quantisation="fp8_scaled", dtype="float8_e4m3fn"), "t2v") == []


def test_float8_files_held_otherwise():
    fp8 = facts(quantisation="fp8_scaled", dtype="float8_e4m3fn")
    assert about_memory(fp8, "sample", "fp8") == about_memory(fp8, "sample", "fp8_fast") == []
    assert about_memory(facts(), "sample", "none") == about_memory(facts(), "sample", "nf4") == []
    (sentence,) = about_memory(fp8, "sample", "none")
    assert "sample.quantize: fp8 keeps it as it is" in sentence
    (sentence,) = about_memory(fp8, "train", "nf4")
    assert "train.quantize: nf4 rounds it once more" in sentence


def test_training_on_rounded_weights():
    (sentence,) = about_training(facts(dtype="float16"), "none")
    assert "float16 weights are the published ones rounded once more" in sentence
    (sentence,) = about_training(facts(quantisation="fp8_scaled", dtype="float8_e4m3fn"), "fp8")
    assert "use the bfloat16 file with train.quantize: fp8" in sentence


def test_training_on_a_distilled_base():
    (sentence,) = about_training(facts("480p_t2v_distilled"), "none")
    assert "wears its distillation off" in sentence
    assert "train on 480p_t2v," in sentence
    (sentence,) = about_training(facts("480p_i2v_step_distilled"), "none")
    assert "mean-flow" in sentence
    assert "train on 480p_i2v," in sentence


def test_a_480p_base_at_720p_and_the_other_way_round():
    (sentence,) = about_sizes(VARIANTS["480p_t2v"], {(720, 1280): 3, (960, 960): 1, (480, 848): 1})
    assert "4 of 5 clips are of 720p sizes (most: 720 x 1280): use 720p_t2v, or a size near 480 x 848" in sentence
    assert about_sizes(VARIANTS["480p_t2v"], {(720, 1280): 2, (480, 848): 2}) == []
    (sentence,) = about_sizes(VARIANTS["720p_i2v"], {(480, 480): 1})
    assert "use 480p_i2v, or a size near 720 x 1280" in sentence
    (sentence,) = about_sample(VARIANTS["480p_i2v"], height=720, width=1280, steps=50, guidance_scale=6)
    assert "720 x 1280 is a 720p size, but 480p_i2v was made for 480p" in sentence


def test_samples_of_distilled_checkpoints():
    variant = VARIANTS["480p_t2v_distilled"]
    sentences = about_sample(variant, height=480, width=848, steps=20, guidance_scale=6)
    assert [sentence.split(":")[0] for sentence in sentences] == ["guidance_scale 6", "infer_steps 20"]
    step = VARIANTS["480p_i2v_step_distilled"]
    assert about_sample(step, height=480, width=848, steps=8, guidance_scale=1) == []
    (sentence,) = about_sample(step, height=480, width=848, steps=30, guidance_scale=1)
    assert "8 or 12 steps" in sentence
    assert about_sample(VARIANTS["480p_t2v"], height=480, width=848, steps=20, guidance_scale=3) == []


def test_a_t2v_lora_on_an_i2v_base_and_the_other_way_round():
    (sentence,) = about_lora("/x/cat.safetensors", {"hv15.task": "t2v"}, VARIANTS["480p_i2v"])
    assert sentence.startswith("cat.safetensors was trained for t2v, but 480p_i2v is for i2v")
    assert "never saw a first frame" in sentence
    (sentence,) = about_lora("cat.safetensors", {"hv15.task": "i2v"}, VARIANTS["480p_t2v"])
    assert "go on from a first frame" in sentence


@pytest.mark.parametrize(
    "metadata",
    [
        {"hv15.config": json.dumps({"models": {"variant": "720p_t2v", "dit": "x.safetensors"}})},
        {"hv15.config": json.dumps({"models": {"variant": "auto", "dit": "/m/720p_t2v/model.safetensors"}})},
        {"ss_sd_model_name": "hunyuanvideo1.5_720p_t2v_fp16.safetensors", "hv15.config": "[]"},
        {"ss_sd_model_name": "hunyuanvideo1.5_720p_t2v_fp16.safetensors", "hv15.config": "{"},
    ],
)
def test_a_lora_of_another_base(metadata: dict[str, str]):
    """Told by the settings that it was trained with, or by the file name in kohya's metadata."""
    (sentence,) = about_lora("cat.safetensors", metadata, VARIANTS["480p_t2v"])
    assert "trained for t2v on 720p_t2v and is used on 480p_t2v" in sentence
    assert about_lora("cat.safetensors", metadata, VARIANTS["720p_t2v_distilled"]) == []
    (sentence,) = about_lora("cat.safetensors", metadata, VARIANTS["720p_i2v"])
    assert "trained for t2v on 720p_t2v, but 720p_i2v is for i2v" in sentence


@pytest.mark.parametrize("metadata", [{}, {"hv15.config": json.dumps({"models": {"dit": "models/dit.safetensors"}})}])
def test_the_folder_of_this_process_tells_nothing_about_a_lora(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metadata: dict[str, str]
):
    project = tmp_path / "720p_t2v"
    (project / "models").mkdir(parents=True)
    monkeypatch.chdir(project)
    assert about_lora("cat.safetensors", metadata, VARIANTS["480p_t2v"]) == []


def test_a_lora_of_unknown_origin():
    assert about_lora("cat.safetensors", {}, VARIANTS["480p_i2v"]) == []
    assert about_lora("cat.safetensors", {"ss_sd_model_name": "model.safetensors"}, VARIANTS["480p_i2v"]) == []
