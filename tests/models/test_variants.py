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
        ("hy1.5_t2v_480p_bf16.safetensors", "480p_t2v"),
        ("HunyuanVideo-1.5-I2V-720P-cfg-distilled.safetensors", "720p_i2v_distilled"),
        ("wan_480p_i2v2_x.safetensors", None),
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


@pytest.mark.parametrize(
    ("name", "base", "unknown"),
    [
        ("hunyuanvideo1.5_480p_t2v_step_distilled.safetensors", "480p_t2v_distilled", "480p_t2v_step_distilled"),
        ("hv15_720p_i2v_4steps.safetensors", "720p_i2v_distilled", "720p_i2v_step_distilled"),
        ("hv15_480p_t2v_sparse.safetensors", "480p_t2v_distilled", "480p_t2v_distilled_sparse"),
        ("hv15_480p_i2v_8_step.safetensors", "480p_i2v_step_distilled", ""),
    ],
)
def test_kinds_that_are_not_published_are_kept_by_name(name: str, base: str, unknown: str):
    assert detect_variant(name) == FoundVariant(base, "path", name, unknown)


def test_a_link_is_followed(tmp_path: Path):
    """Links as in the Hub's cache, or in a model folder that collects links under short names."""
    folder = tmp_path / "transformer" / "720p_i2v"
    folder.mkdir(parents=True)
    (folder / "diffusion_pytorch_model.safetensors").touch()
    (tmp_path / "dit.safetensors").symlink_to(folder / "diffusion_pytorch_model.safetensors")
    assert name_of(tmp_path / "dit.safetensors") == "720p_i2v"


def test_configs_tell_the_distillation_too(tmp_path: Path):
    """The official one by use_meanflow; in a diffusers repository the guider's config."""
    official = tmp_path / "a"
    official.mkdir()
    content = {"ideal_resolution": "480p", "ideal_task": "i2v", "use_meanflow": True}
    (official / "config.json").write_text(json.dumps(content))
    assert detect_variant(official) == FoundVariant("480p_i2v_step_distilled", "config.json")
    (official / "config.json").write_text(json.dumps(content | {"use_meanflow": False}))
    assert name_of(official) == "480p_i2v"

    transformer, guider = tmp_path / "b" / "transformer", tmp_path / "b" / "guider"
    transformer.mkdir(parents=True)
    guider.mkdir()
    (transformer / "config.json").write_text(json.dumps({"target_size": 960, "task_type": "t2v"}))
    for scale, name in ((1.0, "720p_t2v_distilled"), (6.0, "720p_t2v")):
        (guider / "guider_config.json").write_text(json.dumps({"guidance_scale": scale}))
        assert name_of(transformer) == name


def test_defaults_follow_from_what_a_checkpoint_is():
    for name, variant in VARIANTS.items():
        assert name.startswith(f"{variant.resolution}p_{variant.task}")
        assert (variant.guidance_scale == 1) == variant.distilled
    assert (VARIANTS["720p_t2v"].flow_shift, VARIANTS["720p_i2v"].flow_shift) == (9, 7)
    assert (VARIANTS["480p_i2v_step_distilled"].infer_steps, VARIANTS["480p_i2v_step_distilled"].flow_shift) == (12, 7)
    assert VARIANTS["720p_i2v_distilled_sparse"].sparse
