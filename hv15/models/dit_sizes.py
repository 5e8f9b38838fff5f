"""The layout of a transformer's checkpoint and the sizes of its network, from names and shapes alone."""

from __future__ import annotations

from itertools import count

from hv15.choices import PublishedLayout
from hv15.errors import UserError
from hv15.models.dit_config import DiTConfig
from hv15.models.layouts import detect_dit_layout, looks_like, reading_recipes
from hv15.models.weights.checkpoint import Checkpoint, check_keys
from hv15.models.weights.recipe import Recipe
from hv15.models.weights.written import WrittenSizes, sizes_in_text
from hv15.records.metadata import MODEL_SIZES


def layout_of(checkpoint: Checkpoint) -> tuple[PublishedLayout, str]:
    """Return the layout and key prefix of the transformer in a checkpoint.

    Raises:
        UserError: it is another model.
    """
    found = detect_dit_layout(checkpoint.keys())
    if found is None:
        what = looks_like(checkpoint.keys())
        raise UserError.at(
            checkpoint.path,
            f"not the HunyuanVideo 1.5 transformer: it looks like {what}",
            hint="set models.dit to the transformer, in the official, ComfyUI or diffusers layout",
        )
    return found


def read_config(checkpoint: Checkpoint) -> DiTConfig:
    """Read the transformer's sizes from the shapes in a checkpoint, and the RoPE axes from metadata or config.json.

    Raises:
        UserError: a tensor whose shape is needed is missing, or the sizes contradict one another.
    """
    layout, prefix = layout_of(checkpoint)
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
        raise UserError.at(
            checkpoint.path,
            f"takes {in_channels} input channels, but t2v and i2v take {2 * latent_channels + 1}",
            hint="use a t2v or i2v transformer; super-resolution checkpoints are another model",
        )
    if hidden_size % head_dim:
        raise UserError.at(
            checkpoint.path,
            f"{hidden_size} channels cannot be divided into heads of {head_dim}",
            hint="download the file again: it was changed, or is another model",
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
        refiner_mlp_ratio=shape("txt_in.individual_token_refiner.blocks.0.mlp.fc1.weight")[0] / hidden_size,
        meanflow=recipe("time_r_in.mlp.0.weight").sources[0] in names,
    )


def _rope(checkpoint: Checkpoint, head_dim: int) -> tuple[tuple[int, int, int], float]:
    """RoPE axes and theta from our metadata, else from config.json (official or diffusers names), else the defaults."""
    where, metadata = str(checkpoint.path), checkpoint.metadata
    written = sizes_in_text(metadata[MODEL_SIZES], where) if MODEL_SIZES in metadata else None
    if written is None or not written.content:
        written = WrittenSizes(checkpoint.config, where)
    named = (written.integers(name, None) for name in ("rope_dims", "rope_dim_list", "rope_axes_dim"))
    axes = next((found for found in named if found), ())
    theta = written.number("rope_theta", DiTConfig.rope_theta)
    if not axes and head_dim == sum(DiTConfig.rope_dims):
        return DiTConfig.rope_dims, theta
    if len(axes) != 3 or sum(axes) != head_dim or any(dim % 2 for dim in axes):
        found = f"rope dims {list(axes)}" if axes else "no rope dims"
        raise UserError.at(
            checkpoint.path,
            f"found {found} in metadata or config.json, expected three even numbers that add up to "
            f"the {head_dim} channels of a head",
            hint='set "rope_dim_list" in a config.json beside the file',
        )
    return axes, theta
