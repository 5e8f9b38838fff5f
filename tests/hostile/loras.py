"""LoRA files whose metadata or names are wrong, and what must be said about them."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.hostile.entry import Hostile
from tests.hostile.texts import HOSTILE

NAME = "lora_unet_double_blocks_0_img_attn_q"
WEIGHTS = {f"{NAME}.lora_down.weight": torch.ones(2, 48), f"{NAME}.lora_up.weight": torch.ones(48, 2)}
FORGED_NAME = f"{''.join(HOSTILE.values())}.safetensors"

PEFT = {
    "lists": ("[" * 100_000, "nested too deep"),
    "objects": ('{"r": ' * 50_000, "nested too deep"),
    "no numbers": ('{"r": NaN, "lora_alpha": Infinity}', "alpha holds NaN or infinity"),
    "half a character": ('"\\ud800"', "expected"),
}
"""Its settings, as JSON in the metadata."""


def _metadata(text: str, said: str) -> Hostile:
    return Hostile(
        lambda folder: save_file(WEIGHTS, folder / "a.safetensors", {"lora_adapter_metadata": text}),
        ("convert", "a.safetensors", "b.safetensors"),
        ("error: a.safetensors: ", said),
    )


def _names(folder: Path) -> None:
    """Names of tensors that a terminal would obey, in a file of such a name."""
    tensors = {f"lora_unet_{text}.lora_up.weight": torch.zeros(1) for text in HOSTILE.values()}
    save_file(tensors, folder / FORGED_NAME)


def _shown(folder: Path) -> None:
    texts = {text: text for text in HOSTILE.values()} | {f"key{n}": text for n, text in enumerate(HOSTILE.values())}
    save_file(WEIGHTS, folder / "a.safetensors", texts)


def _cut(folder: Path) -> None:
    path = folder / "a.safetensors"
    save_file(WEIGHTS, path)
    path.write_bytes(path.read_bytes()[:-5])


INPUTS = {
    **{f"PEFT settings: {name}": _metadata(*each) for name, each in PEFT.items()},
    "LoRA: names of tensors": Hostile(
        _names,
        ("convert", FORGED_NAME, "b.safetensors"),
        ("of 7 tensors belong to no part of HunyuanVideo 1.5",),
    ),
    "LoRA: metadata that is shown": Hostile(_shown, ("show", "a.safetensors"), ("key6", "\u241b"), code=0),
    "LoRA: cut short": Hostile(
        _cut, ("convert", "a.safetensors", "b.safetensors"), ("error: a.safetensors: truncated: ",)
    ),
}
