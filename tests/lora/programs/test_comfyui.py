"""ComfyUI's rules as a table, and against the restatement of its behaviour that says what a file changes there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.testing import assert_close

from hv15.choices import LoRALayout
from hv15.lora import convert, merge_patch, save_lora
from hv15.lora.programs.comfyui import weight_of
from hv15.lora.programs.verify import verify
from tests.lora.comfyui import changes, weight_name
from tests.lora.samples import random_lora
from tests.models.golden_dit import key_table

QKV = "diffusion_model.double_blocks.0.img_attn.qkv"
LORA = {"lora_A.weight": (2, 8), "lora_B.weight": (24, 2)}
DOWN_UP = {"lora_down.weight": (2, 8), "lora_up.weight": (24, 2), "alpha": ()}
SETTINGS = {"lora_adapter_metadata": json.dumps({"r": 2, "lora_alpha": 6})}
Shapes = dict[str, tuple[int, ...]]

TABLE: dict[str, tuple[str, Shapes, dict[str, str], str, str]] = {
    # module, parts, metadata -> outcome of its matrices, words
    "own names": (QKV, LORA, {}, "loads", ""),
    "own names, kohya's parts": (QKV, DOWN_UP, {}, "loads", ""),
    "joined": ("lora_unet_double_blocks_0_img_attn_qkv", DOWN_UP, {}, "loads", ""),
    "the checkpoint's names": ("diffusion_model.double_blocks.0.img_attn_qkv", LORA, {}, "loads", ""),
    "the same after transformer": ("transformer.double_blocks.0.img_attn_qkv", LORA, {}, "loads", ""),
    "checkpoint's mlp": ("diffusion_model.double_blocks.0.img_mlp.fc1", LORA, {}, "loads", ""),
    "own names after transformer": ("transformer.double_blocks.0.img_attn.qkv", LORA, {}, "dropped", "another name"),
    "the refiner": (
        "diffusion_model.txt_in.individual_token_refiner.blocks.1.self_attn.qkv", LORA, {}, "loads", "",
    ),
    "the name of an adapter": (
        QKV, {"lora_A.default.weight": (2, 8), "lora_B.default.weight": (24, 2)}, {}, "loads", "",
    ),
    "loha": (
        QKV, {"hada_w1_a": (24, 2), "hada_w1_b": (2, 8), "hada_w2_a": (24, 2), "hada_w2_b": (2, 8)}, {}, "loads", "",
    ),
    "lokr": (QKV, {"lokr_w1": (2, 2), "lokr_w2": (12, 4), "alpha": ()}, {}, "loads", ""),
    "a difference": (QKV, {"diff": (24, 8)}, {}, "loads", ""),
    "q alone": ("diffusion_model.double_blocks.0.img_attn_q", LORA, {}, "dropped", "q, k and v in one matrix"),
    "kohya's q": ("lora_unet_double_blocks_0_img_attn_q", DOWN_UP, {}, "dropped", "q, k and v in one matrix"),
    "kohya's mlp": ("lora_unet_double_blocks_0_img_mlp_fc1", DOWN_UP, {}, "dropped", "another name"),
    "kohya's projection": ("lora_unet_double_blocks_0_img_attn_proj", DOWN_UP, {}, "loads", ""),
    "no prefix": ("double_blocks.0.img_attn.qkv", LORA, {}, "dropped", "another name"),
    "diffusers": ("transformer.transformer_blocks.0.attn.to_q", LORA, {}, "dropped", "another name"),
    "SimpleTuner's LyCORIS": ("lycoris_transformer_blocks_0_attn_to_q", DOWN_UP, {}, "dropped", "another name"),
    "PEFT": ("base_model.model.double_blocks.0.img_attn.qkv", LORA, {}, "dropped", ""),
    "another model": ("diffusion_model.blocks.0.cross_attn.q", LORA, {}, "dropped", "no layer of"),
    "strength in the metadata": (QKV, LORA, SETTINGS, "wrong", "0.3333 times"),
    "dora by the base's norms": (QKV, {**DOWN_UP, "dora_scale": (24, 1)}, {"hv15.dora_norm": "base"}, "loads", ""),
    "dora of lycoris": (QKV, {**DOWN_UP, "dora_scale": (24, 1)}, {}, "wrong", "norms of the base weight"),
    "dora of lycoris by columns": (QKV, {**DOWN_UP, "dora_scale": (1, 8)}, {}, "loads", ""),
    "dora of peft": (QKV, {**LORA, "lora_magnitude_vector": (24,)}, {}, "wrong", "magnitudes are dropped"),
    "half a lora": (QKV, {"lora_up.weight": (24, 2)}, {}, "stops", "no lora_down.weight"),
    "a magnitude alone": (QKV, {"dora_scale": (24, 1)}, {}, "wrong", "changes nothing"),
    "alpha not times three": (
        QKV,
        {"lora_down.weight": (6, 8), "lora_up.weight": (24, 6), "alpha": ()},
        {"ss_network_dim": "2", "ss_network_alpha": "1"},
        "wrong",
        "0.3333 times",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_the_rules(tmp_path: Path, case: str) -> None:
    module, parts, metadata, outcome, words = TABLE[case]
    path = tmp_path / "lora.safetensors"
    save_file({f"{module}.{part}": torch.ones(shape) for part, shape in parts.items()}, path, metadata)
    verdicts = verify(path, "comfyui").verdicts
    matrices = [verdict for key, verdict in verdicts.items() if not key.endswith((".alpha", "_vector"))]
    assert {verdict.outcome for verdict in matrices} == {outcome}
    assert all(words in verdict.why for verdict in matrices)


def test_every_linear_layer_of_its_model_is_found_under_four_names() -> None:
    keys = [key for key in key_table("keys_comfy_dit") if key.endswith("attn_qkv.weight")]
    linears = [weight_name(key).removesuffix(".weight") for key in keys]
    assert len(linears) == 2 * 54 + 2
    for own in linears:
        checkpoint = own.replace("_attn.qkv", "_attn_qkv")
        flat = "lora_unet_" + own.replace(".", "_")
        names = (f"diffusion_model.{own}", flat, f"diffusion_model.{checkpoint}", f"transformer.{checkpoint}")
        assert {weight_of(name) for name in names} == {own}


@pytest.mark.parametrize("layout", ["kohya", "comfyui", "diffusers", "official"])
def test_what_loads_has_there_the_effect_that_is_meant(tmp_path: Path, layout: LoRALayout) -> None:
    sizes = {f"double_blocks.0.img_{part}": (8, 8) for part in ("attn_q", "attn_k", "attn_v", "attn_proj", "mlp.fc1")}
    lora = random_lora(sizes)
    tensors, metadata = convert(lora, layout)
    save_lora(tmp_path / "lora.safetensors", tensors, metadata)
    found = verify(tmp_path / "lora.safetensors", "comfyui")
    weights = {f"double_blocks.0.{name}.weight" for name in ("img_attn_qkv", "img_attn_proj", "img_mlp.fc1")}
    changed, skipped = changes(tensors, weights)
    assert {key for key, verdict in found.verdicts.items() if verdict.outcome == "dropped"} == skipped
    assert found.is_right == (layout == "comfyui")
    if found.is_right:
        patch = merge_patch(lora)
        expected: list[Tensor] = [patch(f"double_blocks.0.img_attn_{part}", torch.zeros(8, 8)) for part in "qkv"]
        assert_close(changed["double_blocks.0.img_attn_qkv.weight"].float(), torch.cat(expected))
