"""Loading and saving the transformer: any published layout in, sizes from the file, one tensor at a time."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any, Protocol, get_args

import torch
from torch import Tensor

from hv15.errors import UserError
from hv15.models.checkpoint import MODEL_SIZES, Checkpoint, check_keys, load_into, open_checkpoint
from hv15.models.dit import DiT, DiTConfig
from hv15.models.fp8_files import WeightReader
from hv15.models.layouts import Layout, Recipe, detect_layout, looks_like, reading_recipes, writing_recipes
from hv15.models.quantised import Fp8Linear, Kind, ScaledCodes, check_kind, replace_linears
from hv15.models.writer import write_checkpoint


class Patch(Protocol):
    """A change of weights on their way from the file into the model, such as a LoRA that is merged."""

    modules: Collection[str]
    """Official names of the linear layers it changes."""

    def __call__(self, module: str, weight: Tensor) -> Tensor:
        """The changed weight; both fp32 [out, in]."""


def load_dit(
    path: Path | str,
    *,
    config: DiTConfig | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    quantize: Kind | None = None,
    merge: Sequence[Patch] = (),
    host_blocks: int = 0,
) -> DiT:
    """Load the transformer from a file or folder in the official, ComfyUI or diffusers layout; frozen, in eval mode.

    It is streamed: a tensor is read, changed, cast or quantised, and put where it stays, before the next one is read.

    Args:
        config: sizes; None reads them from the file.
        dtype: of all that is not quantised, and of the activations. None keeps the file's, and fp8 weights in fp8.
        quantize: number format of the linear layers of the blocks; None: `dtype`. Weights that the file has in fp8 stay
            as they are if this is fp8, too.
        merge: changes of weights, one after another (`hv15.lora.merge_patch`).
        host_blocks: so many of the last blocks are left on the CPU.

    Raises:
        UserError: no such file, damaged, a pickle, another model, not exactly the tensors or shapes of this one, NaN.
    """
    checkpoint = open_checkpoint(Path(path))
    layout, prefix = _layout(checkpoint)
    config = config or read_config(checkpoint)
    with torch.device("meta"):
        dit = DiT(config)
    reader = WeightReader(checkpoint, prefix, device)
    recipes = reading_recipes(layout, dit.state_dict())
    needed = dict.fromkeys(source for recipe in recipes.values() for source in recipe.sources)
    check_keys(needed, reader.names, checkpoint.path, what=f"transformer ({layout} layout)")
    for recipe in recipes.values():
        _check_rows(checkpoint, [prefix + source for source in recipe.sources], recipe.parts)
    _check_patches(merge, recipes)

    in_fp8 = {key for key, recipe in recipes.items() if any(map(reader.is_fp8, recipe.sources))}
    if quantize is not None:
        check_kind(quantize, device)
        replace_linears(dit, quantize, is_block_linear)
    elif dtype is None:
        replace_linears(dit, "fp8", lambda name: is_block_linear(name) and f"{name}.weight" in in_fp8)
    if in_fp8 and dtype is None:
        found = checkpoint.dtype(prefix + recipes["img_in.proj.weight"].sources[0])
        dtype = found if found.itemsize > 1 else torch.bfloat16
    kept = config.num_blocks - host_blocks if torch.device(device).type != "meta" else config.num_blocks

    def tensors() -> Iterator[tuple[str, Tensor | ScaledCodes]]:
        for key, recipe in recipes.items():
            module, _, name = key.rpartition(".")
            value = reader.make(recipe, dtype)
            patches = [patch for patch in merge if name == "weight" and module in patch.modules]
            if isinstance(value, ScaledCodes):
                if not patches and isinstance(dit.get_submodule(module), Fp8Linear):
                    yield key, value
                    continue
                value = value.to(device).dequantised(torch.float32 if patches else dtype or torch.bfloat16)
            for patch in patches if torch.device(device).type != "meta" else ():
                value = patch(module, value.to(device, torch.float32))
            yield key, value

    load_into(
        dit,
        tensors(),
        dtype=dtype,
        device=device,
        kept_on_host=lambda key: block_number(key) >= kept,
        where=checkpoint.path,
    )
    return dit


def block_number(name: str) -> int:
    """The number of the block that a module or tensor belongs to; -1 outside the blocks."""
    match = re.match(r"double_blocks\.(\d+)\.", name)
    return int(match[1]) if match else -1


def is_block_linear(name: str) -> bool:
    """Whether a linear layer is one of those that are quantised: modulations, attention and MLPs of the blocks."""
    return block_number(name) >= 0


def _check_patches(patches: Sequence[Patch], official_keys: Collection[str]) -> None:
    for patch in patches:
        missing = [module for module in patch.modules if f"{module}.weight" not in official_keys]
        if missing:
            raise UserError(
                f"LoRA: {len(missing)} of {len(patch.modules)} changed layers are not in this model, "
                f"first {missing[0]}",
                hint="the LoRA was made for a model with more blocks, or for another variant",
            )


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
