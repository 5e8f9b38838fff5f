"""Every key of the published checkpoints, at full size, without a byte of weights."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from hv15.models import DiT, DiTConfig
from hv15.models.layouts import detect_dit_layout, diffusers_module, looks_like, reading_recipes, writing_recipes
from tests.models.golden_dit import KEYS, key_table, tensors

TABLES = {
    "keys_official_dit": ("official", False),
    "keys_official_dit_meanflow": ("official", True),
    "keys_comfy_dit": ("comfyui", False),
    "keys_diffusers_dit": ("diffusers", False),
}


def real(meanflow: bool) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return DiT(DiTConfig(meanflow=meanflow)).state_dict()


def mostly_slow(*quick: str) -> list[Any]:
    return [table if table in quick else pytest.param(table, marks=pytest.mark.slow) for table in TABLES]


@pytest.mark.parametrize("table", mostly_slow("keys_official_dit_meanflow", "keys_comfy_dit", "keys_diffusers_dit"))
def test_every_published_key_makes_exactly_our_tensors(table: str):
    layout, meanflow = TABLES[table]
    published = {key: torch.empty(shape, device="meta") for key, shape in key_table(table).items()}
    assert detect_dit_layout(published) == (layout, "")
    expected = real(meanflow)
    recipes = reading_recipes(layout, expected)
    assert {source for recipe in recipes.values() for source in recipe.sources} == set(published)
    for key, tensor in expected.items():
        assert recipes[key].make(published.__getitem__).shape == tensor.shape, key


@pytest.mark.parametrize("table", mostly_slow("keys_comfy_dit", "keys_diffusers_dit"))
def test_writing_gives_exactly_the_published_keys(table: str):
    layout, meanflow = TABLES[table]
    state = real(meanflow)
    recipes = writing_recipes(layout, state)
    assert {key: tuple(recipe.make(state.__getitem__).shape) for key, recipe in recipes.items()} == key_table(table)


def test_our_diffusers_names_are_those_of_the_full_map():
    """The map was made by running both implementations; it lists the first block of each kind."""
    table = json.loads((KEYS / "map_official_to_diffusers.json").read_text())["dit"]
    recipes = reading_recipes("diffusers", table)
    for key, targets in table.items():
        assert list(recipes[key].sources) == [name for name, _ in targets], key
        transforms = [note for _, note in targets]
        if recipes[key].swap:
            assert "swap" in str(transforms[0]), key
        elif len(targets) == 3:
            assert transforms == ["chunk3[0]", "chunk3[1]", "chunk3[2]"]
        else:
            assert transforms == [None], key


@pytest.mark.parametrize("layout", ["official", "comfyui", "diffusers"])
def test_there_and_back_is_exact(layout: str):
    state = tensors("dit_weights")
    written = {key: recipe.make(state.__getitem__) for key, recipe in writing_recipes(layout, state).items()}
    assert detect_dit_layout(written) == (layout, "")
    for key, recipe in reading_recipes(layout, state).items():
        assert torch.equal(recipe.make(written.__getitem__), state[key]), key


def test_fused_rows_are_q_then_k_then_v():
    state = tensors("dit_weights")
    fused = writing_recipes("comfyui", state)["double_blocks.1.txt_attn_qkv.bias"].make(state.__getitem__)
    parts = [state[f"double_blocks.1.txt_attn_{part}.bias"] for part in "qkv"]
    assert torch.equal(fused, torch.cat(parts))


def test_prefixed_comfyui_files_are_recognised():
    for prefix in ("model.diffusion_model.", "diffusion_model."):
        assert detect_dit_layout([f"{prefix}double_blocks.0.img_attn_qkv.weight"]) == ("comfyui", prefix)
    assert detect_dit_layout(["double_blocks.0.img_attn_qkv.bias"]) is None


def test_diffusers_names_of_modules():
    assert diffusers_module("double_blocks.53.txt_mod.linear") == "transformer_blocks.53.norm1_context.linear"
    assert diffusers_module("txt_in.individual_token_refiner.blocks.1.mlp.fc1").endswith("blocks.1.ff.net.0.proj")
    with pytest.raises(KeyError):
        diffusers_module("single_blocks.0.linear1")


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        (["encoder.conv_in.conv.weight"], "a VAE"),
        (["model.layers.0.self_attn.q_proj.weight"], "a language model"),
        (["encoder.block.0.layer.0.SelfAttention.q.weight"], "a T5 or ByT5 encoder"),
        (["vision_model.encoder.layers.0.self_attn.q_proj.weight"], "a SigLIP or CLIP image encoder"),
        (["lora_unet_double_blocks_0_img_attn_q.lora_down.weight"], "a LoRA"),
        (["double_blocks.0.img_mod.linear.weight", "single_blocks.0.linear1.weight"], "HunyuanVideo 1.0"),
        (["something"], "an unknown model"),
    ],
)
def test_other_models_are_named(keys: list[str], name: str):
    assert name in looks_like(keys)
