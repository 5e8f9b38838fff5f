"""The names of all linear layers, at full size, against the published models themselves."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from diffusers import HunyuanVideo15Transformer3DModel
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hv15.errors import UserError
from hv15.lora.kinds import detect_lora_layout, group_parts
from hv15.lora.names import LORA_LAYOUTS, find_parts, module_layout, place_of, select_modules, written_name
from hv15.models import DiT
from tests.lora import comfyui
from tests.models.golden_dit import key_table


@pytest.fixture(scope="module")
def official() -> list[str]:
    """All linear layers of the real model."""
    with torch.device("meta"):
        return [name for name, module in DiT().named_modules() if isinstance(module, nn.Linear)]


def parts_of(names: list[str]) -> list[str]:
    return [part for name in names for part in find_parts(name) or pytest.fail(name)]


def test_756_modules_are_trained(official: list[str]):
    assert len(select_modules(official)) == 54 * 14


def test_every_linear_has_its_diffusers_module(official: list[str]):
    with torch.device("meta"):
        peer = HunyuanVideo15Transformer3DModel()
    expected = {name for name, module in peer.named_modules() if isinstance(module, nn.Linear)}
    assert {place_of(part, "diffusers").module for part in parts_of(official)} == expected


def test_every_linear_has_its_comfyui_module(official: list[str]):
    matrices = {
        key for key, shape in key_table("keys_comfy_dit").items() if key.endswith(".weight") and len(shape) == 2
    }
    expected = {comfyui.weight_name(key).removesuffix(".weight") for key in matrices - {"cond_type_embedding.weight"}}
    assert {place_of(part, "comfyui").module for part in parts_of(official)} == expected


@pytest.mark.parametrize("layout", LORA_LAYOUTS)
def test_written_names_are_read_back(official: list[str], layout: str):
    """Every name leads back to its part and place, and shows its layout unless two layouts share it."""
    seen: dict[str, str] = {}
    for part in parts_of(official):
        place = place_of(part, layout)
        name = written_name(place.module, layout)
        assert find_parts(name)[part] == replace(place, module=name)
        assert module_layout(name) in (("comfyui", "kohya") if layout == "comfyui_kohya" else (layout,))
        assert seen.setdefault(f"{name}@{place.third}", part) == part


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("lora_unet_double_blocks_53_img_attn_qkv", "comfyui"),
        ("lora_unet_double_blocks_53_txt_mod_lin", "comfyui"),
        ("diffusion_model.double_blocks.3.img_attn_qkv", "comfyui"),
        ("transformer.double_blocks.3.img_mlp.fc1", "comfyui"),
        ("transformer_blocks.3.attn.to_q", "diffusers"),
        ("lycoris_transformer_blocks_3_attn_to_q", "diffusers"),
        ("lora_unet_double_blocks_3_img_attn_q", "kohya"),
        ("unet.transformer_blocks.3.attn.to_q", None),
        ("lora_transformer_transformer_blocks_3_attn_to_q", "diffusers"),
        ("base_model.model.double_blocks.3.img_attn_q", "peft"),
        ("base_model.model.transformer_blocks.3.attn.to_q", "peft"),
        ("diffusion_model.blocks.3.self_attn.q", None),
        ("transformer.single_transformer_blocks.3.attn.to_q", None),
    ],
)
def test_spellings_of_other_tools(name: str, layout: str | None):
    assert module_layout(name) == layout


def test_patterns_choose_modules(official: list[str]):
    assert len(select_modules(official, include=["img_attn_[qkv]$"])) == 54 * 3
    assert len(select_modules(official, exclude=["_mod"])) == 54 * 12
    only = select_modules(official, include=[r"blocks\.(7|8)\.", "txt_mlp"], exclude=["attn_v"])
    assert len(only) == 2 * 12 + 52 * 2
    assert not any("attn_v" in name for name in only)


@pytest.mark.parametrize(
    ("include", "exclude", "words"),
    [
        (["img_attn_x"], [], "include_patterns: 'img_attn_x' matches none"),
        ([], ["single_blocks"], "exclude_patterns: 'single_blocks' matches none"),
        (["img_attn_[q"], [], "is not usable as a regular expression"),
        ([], ["."], "no module is left"),
    ],
)
def test_patterns_that_cannot_be_meant(official: list[str], include: list[str], exclude: list[str], words: str):
    with pytest.raises(UserError, match=words.replace("[", r"\[")):
        select_modules(official, include, exclude)


NAME_PARTS = st.sampled_from(
    ["lora_unet_", "lycoris_", "diffusion_model.", "transformer.", "double_blocks", "transformer_blocks", ".", "_", "0",
     "53", "99999999999999999999", "img_attn_q", "img_attn.qkv", "attn.to_q", "txt_in", "@0", "-1", "٣", "\0", "(", "*"]
)  # fmt: skip


@pytest.mark.slow
@given(parts=st.lists(NAME_PARTS | st.text(max_size=3), max_size=8), endings=st.lists(st.text(max_size=8), max_size=3))
@settings(max_examples=400, derandomize=True, deadline=None)
def test_any_name_is_known_or_not(parts: list[str], endings: list[str]) -> None:
    """What is known leads to a part of the model, and is written again under the same name."""
    name = "".join(parts)
    layout, found = module_layout(name), find_parts(name)
    assert found is None or all(found)
    if found is not None and layout is not None and len(found) == 1:
        assert find_parts(written_name(next(iter(found)), layout)) == found
    keys = [f"{name}.{ending}" for ending in (*endings, "lora_up.weight")]
    group_parts(keys)
    with suppress(UserError):
        detect_lora_layout(keys)
