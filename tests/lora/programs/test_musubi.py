"""musubi-tuner's rules as a table: it merges what it finds under one name for each weight, and warns of the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hv15.lora.programs.verify import verify

Q = "lora_unet_double_blocks_0_img_attn_q"
LORA = {"lora_down.weight": (2, 8), "lora_up.weight": (8, 2)}
ALPHA: dict[str, tuple[int, ...]] = {"alpha": ()}
LOHA = {"hada_w1_a": (8, 2), "hada_w1_b": (2, 8), "hada_w2_a": (8, 2), "hada_w2_b": (2, 8)}
SETTINGS = {"lora_adapter_metadata": json.dumps({"r": 2, "lora_alpha": 6})}

TABLE: dict[str, tuple[str, dict[str, tuple[int, ...]], dict[str, str], str, str]] = {
    "lora": (Q, LORA | ALPHA, {}, "loads", ""),
    "without alpha": (Q, LORA, {}, "loads", ""),
    "the refiner": ("lora_unet_txt_in_individual_token_refiner_blocks_0_self_attn_qkv", LORA, {}, "loads", ""),
    "loha": (Q, LOHA | ALPHA, {}, "loads", ""),
    "lokr": (Q, {"lokr_w1": (2, 2), "lokr_w2": (4, 4)} | ALPHA, {}, "loads", ""),
    "lokr, factored": (Q, {"lokr_w1": (2, 2), "lokr_w2_a": (4, 1), "lokr_w2_b": (1, 4)}, {}, "loads", ""),
    "lokr, w1 factored": (
        Q, {"lokr_w1_a": (2, 1), "lokr_w1_b": (1, 2), "lokr_w2": (4, 4)}, {}, "dropped", "whole w1",
    ),
    "a difference": (Q, {"diff": (8, 8)}, {}, "dropped", "not diff"),
    "PEFT's parts": (Q, {"lora_A.weight": (2, 8), "lora_B.weight": (8, 2)}, {}, "dropped", "lora_down"),
    "ComfyUI": ("diffusion_model.double_blocks.0.img_attn.qkv", LORA, {}, "dropped", "q, k and v apart"),
    "joined": ("lora_unet_double_blocks_0_img_attn_qkv", LORA, {}, "dropped", "q, k and v apart"),
    "official": ("double_blocks.0.img_attn_q", LORA, {}, "dropped", "takes names such as"),
    "another model": ("lora_unet_blocks_0_cross_attn_q", LORA, {}, "dropped", "no layer of"),
    "strength in the metadata": (Q, LORA, SETTINGS, "wrong", "0.3333 times"),
    "dora": (Q, LORA | ALPHA | {"dora_scale": (8, 1)}, {}, "wrong", "magnitudes are dropped"),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_the_rules(tmp_path: Path, case: str) -> None:
    module, parts, metadata, outcome, words = TABLE[case]
    path = tmp_path / "lora.safetensors"
    save_file({f"{module}.{part}": torch.ones(shape) for part, shape in parts.items()}, path, metadata)
    verdicts = verify(path, "musubi").verdicts
    matrices = [verdict for key, verdict in verdicts.items() if not key.endswith((".alpha", ".dora_scale"))]
    assert {verdict.outcome for verdict in matrices} == {outcome}
    assert all(words in verdict.why for verdict in matrices)
