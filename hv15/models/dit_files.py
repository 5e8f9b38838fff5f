"""Loading and saving the transformer: any published layout in, sizes from the file, one tensor at a time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from hv15.errors import UserError
from hv15.models.checkpoint import MODEL_SIZES, Checkpoint, check_keys, load_into, open_checkpoint
from hv15.models.dit import DiT, DiTConfig
from hv15.models.layouts import Layout, Recipe, detect_layout, looks_like, reading_recipes, writing_recipes
from hv15.models.writer import write_checkpoint


def load_dit(
    path: Path | str,
    *,
    config: DiTConfig | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> DiT:
    """Load the transformer from a file or folder in the official, ComfyUI or diffusers layout; frozen, in eval mode.

    Args:
        config: sizes; None reads them from the file.
        dtype: None keeps the file's.

    Raises:
        UserError: no such file, damaged, a pickle, another model, not exactly the tensors or shapes of this one, NaN.
    """
    checkpoint = open_checkpoint(Path(path))
    layout, prefix = _layout(checkpoint)
    config = config or read_config(checkpoint)
    with torch.device("meta"):
        dit = DiT(config)
    recipes = reading_recipes(layout, dit.state_dict())
    available = [key.removeprefix(prefix) for key in checkpoint if key.startswith(prefix)]
    needed = dict.fromkeys(source for recipe in recipes.values() for source in recipe.sources)
    check_keys(needed, available, checkpoint.path, what=f"transformer ({layout} layout)")

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for key, recipe in recipes.items():
            _check_rows(checkpoint, [prefix + source for source in recipe.sources], recipe.parts)
            yield key, recipe.make(lambda name: checkpoint.tensor(prefix + name))

    load_into(dit, tensors(), dtype=dtype, device=device, where=checkpoint.path)
    return dit


def save_dit(
    dit: DiT,
    path: Path | str,
    *,
    layout: Layout = "official",
    dtype: torch.dtype | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write the transformer to one .safetensors file in any of the layouts, one tensor at a time, atomically.

    Args:
        dtype: cast to it; None keeps the tensors' own.
        metadata: written beside the sizes.

    Raises:
        UserError: an unknown layout, or the file cannot be written.
    """
    if layout not in get_args(Layout):
        raise UserError(f"unknown layout {layout!r}", hint=f"use one of {', '.join(get_args(Layout))}")
    state: Mapping[str, Tensor] = dit.state_dict()
    recipes = writing_recipes(layout, state)

    def make(recipe: Recipe) -> Tensor:
        tensor = recipe.make(state.__getitem__)
        return tensor.to("cpu", dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype)

    def described(recipe: Recipe) -> Tensor:  # dtype and shape alone, on the meta device
        tensor = recipe.make(lambda key: state[key].to("meta"))
        return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor

    write_checkpoint(
        Path(path),
        {key: described(recipe) for key, recipe in recipes.items()},
        lambda key: make(recipes[key]),
        {**(metadata or {}), "format": "pt", MODEL_SIZES: json.dumps(asdict(dit.config))},
    )


def checkpoint_dtype(path: Path | str) -> torch.dtype:
    """The dtype of most of a checkpoint's bytes, from the headers alone; float8 for a quantised file."""
    checkpoint = open_checkpoint(Path(path))
    sizes: Counter[torch.dtype] = Counter()
    for key in checkpoint:
        dtype = checkpoint.dtype(key)
        sizes[dtype] += dtype.itemsize * torch.Size(checkpoint.shape(key)).numel()
    return sizes.most_common(1)[0][0]


def check_trainable(path: Path | str) -> str:
    """What the number format of a checkpoint has lost already, as a sentence; empty for bfloat16 and float32.

    Raises:
        UserError: another model, or quantised: the LoRA would learn to mend the rounding.
    """
    checkpoint_layout(path)
    dtype = checkpoint_dtype(path)
    if dtype.itemsize == 1:
        raise UserError(
            f"{path}: {str(dtype).removeprefix('torch.')} weights: a LoRA trained on them "
            "would learn to mend their rounding",
            hint="train on the bfloat16 file of the same model",
        )
    if dtype == torch.float16:
        return "float16 weights: rounded from the published ones already, so the LoRA is trained for these"
    return ""


def checkpoint_layout(path: Path | str) -> Layout:
    """The layout of a transformer checkpoint, from its key names; UserError if it is another model."""
    return _layout(open_checkpoint(Path(path)))[0]


def _check_rows(checkpoint: Checkpoint, sources: list[str], parts: int) -> None:
    """Refuse tensors that cannot be joined along rows and divided into equal parts."""
    shapes = [checkpoint.shape(source) for source in sources]
    if any(not shape or shape[0] % parts or shape[1:] != shapes[0][1:] for shape in shapes):
        found = ", ".join(f"{source} {list(shape)}" for source, shape in zip(sources, shapes, strict=True))
        raise UserError(
            f"{checkpoint.path}: tensors of another shape: {found}", hint="this file belongs to another model"
        )


def _layout(checkpoint: Checkpoint) -> tuple[Layout, str]:
    found = detect_layout(checkpoint.keys())
    if found is None:
        what = looks_like(checkpoint.keys())
        raise UserError(
            f"{checkpoint.path}: not the HunyuanVideo 1.5 transformer: it looks like {what}",
            hint="models.dit wants the transformer: official, ComfyUI or diffusers layout",
        )
    scales = [key for key in checkpoint if key.endswith((".scale_weight", ".weight_scale", "scaled_fp8"))]
    if scales:
        raise UserError(
            f"{checkpoint.path}: quantised weights with scales ({scales[0]}), which are not read yet",
            hint="use the bf16 file of the same model",
        )
    return found


def read_config(checkpoint: Checkpoint) -> DiTConfig:
    """Sizes of the transformer in a checkpoint: from the shapes, and the RoPE axes from metadata or config.json.

    Raises:
        UserError: a tensor that tells a size is missing, or the sizes contradict one another.
    """
    layout, prefix = _layout(checkpoint)

    names = {key.removeprefix(prefix) for key in checkpoint if key.startswith(prefix)}

    def recipe(official_key: str) -> Recipe:
        return reading_recipes(layout, [official_key])[official_key]

    def shape(official_key: str, dimensions: int = 2) -> tuple[int, ...]:
        (source,) = recipe(official_key).sources
        if source not in names:
            check_keys([source], [], checkpoint.path, what=f"transformer ({layout} layout)")
        return checkpoint.shape(prefix + source, dimensions)

    def blocks(pattern: str) -> int:
        return next(number for number in count() if recipe(pattern.format(number)).sources[0] not in names)

    hidden_size, in_channels = shape("img_in.proj.weight", 5)[:2]
    (head_dim,) = shape("double_blocks.0.img_attn_q_norm.weight", 1)
    latent_channels = shape("final_layer.linear.weight")[0]
    if in_channels != 2 * latent_channels + 1:
        raise UserError(
            f"{checkpoint.path}: takes {in_channels} channels, but t2v and i2v take {2 * latent_channels + 1}",
            hint="super-resolution checkpoints are another model; use a t2v or i2v transformer",
        )
    if hidden_size % head_dim:
        raise UserError(
            f"{checkpoint.path}: {hidden_size} channels cannot be divided into heads of {head_dim}",
            hint="the file was changed or is another model; download it again",
        )
    rope_dims, rope_theta = _rope(checkpoint, head_dim)
    glyph_hidden, glyph_dim = shape("byt5_in.fc1.weight")
    return DiTConfig(
        hidden_size=hidden_size,
        num_heads=hidden_size // head_dim,
        num_blocks=blocks("double_blocks.{}.img_mod.linear.weight"),
        mlp_ratio=shape("double_blocks.0.img_mlp.fc1.weight")[0] / hidden_size,
        rope_dims=rope_dims,
        rope_theta=rope_theta,
        latent_channels=latent_channels,
        text_dim=shape("txt_in.input_embedder.weight")[1],
        glyph_dim=glyph_dim,
        glyph_hidden=glyph_hidden,
        vision_dim=shape("vision_in.proj.1.weight")[1],
        refiner_blocks=blocks("txt_in.individual_token_refiner.blocks.{}.norm1.weight"),
        meanflow=recipe("time_r_in.mlp.0.weight").sources[0] in names,
    )


def _rope(checkpoint: Checkpoint, head_dim: int) -> tuple[tuple[int, int, int], float]:
    """RoPE axes and theta: from our metadata, else config.json (official or diffusers names), else the real model's."""
    try:
        stored: dict[str, Any] = json.loads(checkpoint.metadata.get(MODEL_SIZES, "{}")) or checkpoint.config
        dims = stored.get("rope_dims") or stored.get("rope_dim_list") or stored.get("rope_axes_dim")
        theta = float(stored.get("rope_theta", DiTConfig.rope_theta))
        if dims is None and head_dim == sum(DiTConfig.rope_dims):
            return DiTConfig.rope_dims, theta
        axes = tuple(map(int, dims or ()))
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{checkpoint.path}: its sizes in metadata or config.json cannot be read: {error}", hint="copy it again"
        ) from error
    if len(axes) != 3 or sum(axes) != head_dim or any(dim % 2 for dim in axes):
        found = f"rope dims {list(axes)}" if axes else "no rope dims"
        raise UserError(
            f"{checkpoint.path}: {found} in metadata or config.json for heads of {head_dim} channels",
            hint='give "rope_dim_list" in a config.json beside the file: three even numbers, their sum the head width',
        )
    return axes, theta
