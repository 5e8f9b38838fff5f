from __future__ import annotations

import json
from pathlib import Path

import pytest

from hv15.models.variants import VARIANTS, FoundVariant, detect_variant


def name_of(path: Path | str) -> str | None:
    found = detect_variant(path)
    return found.name if found else None


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("transformer/480p_t2v/diffusion_pytorch_model.safetensors", "480p_t2v"),
        ("transformer/720p_i2v_distilled/diffusion_pytorch_model.safetensors", "720p_i2v_distilled"),
        ("transformer/720p_i2v_distilled_sparse", "720p_i2v_distilled_sparse"),
        ("transformer/480p_i2v_step_distilled/x.safetensors", "480p_i2v_step_distilled"),
        ("diffusion_models/hunyuanvideo1.5_720p_t2v_fp16.safetensors", "720p_t2v"),
        ("hunyuanvideo1.5_480p_i2v_cfg_distilled_fp16.safetensors", "480p_i2v_distilled"),
        ("hunyuanvideo1.5_480p_i2v_step_distilled_bf16.safetensors", "480p_i2v_step_distilled"),
        ("HunyuanVideo-1.5-Diffusers-480p_t2v/transformer", "480p_t2v"),
        ("HunyuanVideo-1.5-Diffusers-720p_t2v/transformer/../../480p_i2v/x.safetensors", "480p_i2v"),
        ("hunyuanvideo1.5_1080p_sr_distilled_fp16.safetensors", None),
        ("1480p_t2v_something_720p_sr/model.safetensors", None),
        ("model.safetensors", None),
    ],
)
def test_variant_from_the_path(path: str, name: str | None):
    assert name_of(path) == name


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"ideal_resolution": "480p", "ideal_task": "i2v"}, "480p_i2v"),
        ({"target_size": 960, "task_type": "t2v"}, "720p_t2v"),
        ({"target_size": 640, "task_type": "i2v"}, "480p_i2v"),
        ({"target_size": 123, "task_type": "i2v"}, None),
        ({"ideal_resolution": "720p", "ideal_task": "sr"}, None),
        ([], None),
    ],
)
def test_variant_from_config_json(tmp_path: Path, config: object, name: str | None):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert name_of(tmp_path) == name
    assert name_of(tmp_path / "model.safetensors") == name


def test_config_tells_the_task_and_the_path_the_distillation(tmp_path: Path):
    folder = tmp_path / "480p_i2v_step_distilled"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"ideal_resolution": "480p", "ideal_task": "i2v"}))
    assert detect_variant(folder) == FoundVariant(folder.name, "config.json", folder.name)


def test_defaults_follow_from_what_a_checkpoint_is():
    for name, variant in VARIANTS.items():
        assert name.startswith(f"{variant.resolution}p_{variant.task}")
        assert (variant.guidance_scale == 1) == variant.distilled
    assert (VARIANTS["720p_t2v"].flow_shift, VARIANTS["720p_i2v"].flow_shift) == (9, 7)
    assert (VARIANTS["480p_i2v_step_distilled"].infer_steps, VARIANTS["480p_i2v_step_distilled"].flow_shift) == (12, 7)
    assert VARIANTS["720p_i2v_distilled_sparse"].sparse
