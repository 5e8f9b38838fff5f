"""Checkpoint files of the real size that take no disk: a true safetensors header, and data that was never written.

The shapes come from tests/keys, dtypes and further tensors from how each publisher stores its files:

- official: bfloat16 (or float32) throughout.
- ComfyUI: fused qkv, float16 or bfloat16, or "fp8_scaled": the linears of the blocks in float8 e4m3, one float32 scale
  each. Two spellings are about: `X.scale_weight` with an empty `scaled_fp8` tensor that marks the file, and
  `X.weight_scale` with `X.comfy_quant`, a few bytes of JSON that name the format.
- diffusers: a folder of shards with an index and a config.json.
- bitsandbytes as diffusers and transformers write it: packed `weight` and its `weight.absmax`, `weight.quant_map`, ...
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Literal

import torch

from hv15.choices import PublishedLayout
from hv15.models import DiT, DiTConfig
from hv15.models.layouts import writing_recipes
from tests.models.golden_dit import key_table

Shapes = dict[str, tuple[str, tuple[int, ...]]]
"""Tensor name -> (dtype as safetensors writes it, shape)."""

BYTES = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "U8": 1, "I8": 1}


def sparse_checkpoint(path: Path, shapes: Shapes, metadata: Mapping[str, str] | None = None) -> Path:
    """Write a file with this header whose data are a hole: all zeros when read, a few KiB on the disk."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for key, (dtype, shape) in shapes.items():
        start, end = end, end + BYTES[dtype] * prod(shape)
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)  # as the safetensors library aligns it
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + end)
    return path


def official_dit(dtype: str = "BF16", *, meanflow: bool = False) -> Shapes:
    """The published transformer; with `meanflow` it has time_r_in, too."""
    return _all(dtype, key_table("keys_official_dit_meanflow" if meanflow else "keys_official_dit"))


def super_resolution_dit(dtype: str = "BF16", *, layout: PublishedLayout = "official", meanflow: bool = True) -> Shapes:
    """The transformer of the super-resolution stages: 32 + 1 further input channels, and meanflow."""
    shapes = official_dit(dtype, meanflow=meanflow) | {"img_in.proj.weight": (dtype, (2048, 98, 1, 1, 1))}
    state = {key: torch.empty(shape, device="meta") for key, (_, shape) in shapes.items()}
    made = {key: recipe.make(state.__getitem__) for key, recipe in writing_recipes(layout, state).items()}
    return _all(dtype, {key: tuple(tensor.shape) for key, tensor in made.items()})


def comfyui_dit(dtype: str = "F16", *, prefix: str = "") -> Shapes:
    """ComfyUI's repackaged transformer with fused qkv."""
    return {prefix + key: entry for key, entry in _all(dtype, key_table("keys_comfy_dit")).items()}


def comfyui_fp8_dit(
    scales: Literal["none", "scale_weight", "weight_scale"] = "scale_weight", *, rest: str = "F16", prefix: str = ""
) -> Shapes:
    """The same with the blocks' linears in float8 e4m3; `none` is a plain cast without scales."""
    shapes: Shapes = {}
    for key, (dtype, shape) in comfyui_dit(rest).items():
        if not (key.startswith("double_blocks.") and key.endswith(".weight") and len(shape) == 2):
            shapes[prefix + key] = (dtype, shape)
            continue
        module = key.removesuffix(".weight")
        shapes[prefix + key] = ("F8_E4M3", shape)
        if scales != "none":
            shapes[f"{prefix}{module}.{scales}"] = ("F32", ())
        if scales == "weight_scale":
            shapes[f"{prefix}{module}.comfy_quant"] = ("U8", (27,))
    if scales == "scale_weight":
        shapes[prefix + "scaled_fp8"] = ("F8_E4M3", (0,))
    return shapes


def diffusers_dit(dtype: str = "BF16") -> Shapes:
    """The transformer under diffusers' names."""
    return _all(dtype, key_table("keys_diffusers_dit"))


def bitsandbytes_dit(kind: Literal["nf4", "int8"] = "nf4") -> Shapes:
    """diffusers' transformer as `save_pretrained` writes it after quantising its linears with bitsandbytes.

    nf4: two values a byte as uint8 [n/2, 1], an absmax for each 64 values, and the table of 16 values.
    int8: rows of int8 with an absmax for each row (SCB).
    """
    shapes: Shapes = {}
    for key, (dtype, shape) in diffusers_dit().items():
        if not (key.startswith("transformer_blocks.") and key.endswith(".weight") and len(shape) == 2):
            shapes[key] = (dtype, shape)
        elif kind == "nf4":
            count = prod(shape)
            shapes[key] = ("U8", (count // 2, 1))
            shapes[f"{key}.absmax"] = ("F32", (count // 64,))
            shapes[f"{key}.quant_map"] = ("F32", (16,))
            shapes[f"{key}.quant_state.bitsandbytes__nf4"] = ("U8", (82,))
        else:
            shapes[key] = ("I8", shape)
            shapes[key.removesuffix("weight") + "SCB"] = ("F32", shape[:1])
            shapes[key.removesuffix("weight") + "weight_format"] = ("U8", ())
    return shapes


def sized_dit(width: int, blocks: int, dtype: str = "BF16", *, layout: PublishedLayout = "official") -> Shapes:
    """A transformer of another width, a multiple of 128, and number of blocks."""
    with torch.device("meta"):
        state = DiT(DiTConfig(hidden_size=width, num_heads=width // 128, num_blocks=blocks)).state_dict()
    made = {key: recipe.make(state.__getitem__) for key, recipe in writing_recipes(layout, state).items()}
    return {key: (dtype, tuple(tensor.shape)) for key, tensor in made.items()}


def diffusers_folder(folder: Path, shapes: Shapes | None = None, *, shards: int = 4, **config: object) -> Path:
    """Write `folder` as diffusers saves a transformer: shards, their index, and config.json with `config` in it."""
    shapes = diffusers_dit() if shapes is None else shapes
    return _sharded(folder, shapes, "diffusion_pytorch_model", shards, {"_class_name": DIFFUSERS_CLASS, **config})


DIFFUSERS_CLASS = "HunyuanVideo15Transformer3DModel"


def qwen(dtype: str = "BF16") -> Shapes:
    """Qwen2.5-VL-7B under the names that it has on the Hub and in ComfyUI's single file."""
    return _all(dtype, key_table("keys_comfy_qwen25vl"))


def qwen_folder(folder: Path, *, shards: int = 5) -> Path:
    """Write `folder` as Qwen2.5-VL-7B is published: five shards and their index."""
    return _sharded(folder, qwen(), "model", shards, {"model_type": "qwen2_5_vl"})


def data_bytes(shapes: Shapes) -> int:
    """The bytes that the tensors take."""
    return sum(BYTES[dtype] * prod(shape) for dtype, shape in shapes.values())


def _all(dtype: str, table: Mapping[str, tuple[int, ...]]) -> Shapes:
    return {key: (dtype, shape) for key, shape in table.items()}


def _sharded(folder: Path, shapes: Shapes, stem: str, shards: int, config: Mapping[str, object]) -> Path:
    """Divide the tensors into `shards` files of about the same size, in order, and write the index."""
    total = data_bytes(shapes)
    ends = accumulate(data_bytes({key: entry}) for key, entry in shapes.items())
    parts: dict[int, Shapes] = {number: {} for number in range(shards)}
    for (key, entry), end in zip(shapes.items(), ends, strict=True):
        parts[min(shards - 1, (end - 1) * shards // total)][key] = entry
    weight_map = {}
    for number, part in parts.items():
        name = f"{stem}-{number + 1:05d}-of-{shards:05d}.safetensors"
        sparse_checkpoint(folder / name, part, {"format": "pt"})
        weight_map.update(dict.fromkeys(part, name))
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(dict(config)))
    return folder
