"""The notes about a LoRA on a checkpoint that it was not made for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hv15.lora.advice import about_lora
from hv15.models.variants import VARIANTS


@pytest.mark.parametrize("name", VARIANTS)
def test_nothing_is_said_about_a_checkpoint_used_as_it_was_made(name: str):
    variant = VARIANTS[name]
    assert about_lora("a.safetensors", {"hv15.task": variant.task}, variant) == []


def test_a_t2v_lora_on_an_i2v_base_and_the_other_way_round():
    (sentence,) = about_lora("/x/cat.safetensors", {"hv15.task": "t2v"}, VARIANTS["480p_i2v"])
    assert sentence.startswith("cat.safetensors was trained for t2v, but 480p_i2v is for i2v")
    assert "never saw a first frame" in sentence
    (sentence,) = about_lora("cat.safetensors", {"hv15.task": "i2v"}, VARIANTS["480p_t2v"])
    assert "continue a first frame" in sentence


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
    """Known from the settings that it was trained with, or from the file name in kohya's metadata."""
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
