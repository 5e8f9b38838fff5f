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
            hint="name the transformer, in the official, ComfyUI or diffusers layout; in a config it is models.dit",
        )
    return found


def read_config(checkpoint: Checkpoint, *, super_resolution: bool | None = False) -> DiTConfig:
    """Read the transformer's sizes from the shapes in a checkpoint, and the RoPE axes from metadata or config.json.

    Args:
        super_resolution: whether it has to be a transformer of super resolution; None: it may be either kind.

    Raises:
        UserError: a tensor whose shape is needed is missing, the sizes contradict one another, or it is the other kind.
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
    low_resolution = _takes_low_resolution(checkpoint, in_channels, latent_channels, super_resolution)
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
        low_resolution=low_resolution,
    )


def _takes_low_resolution(checkpoint: Checkpoint, found: int, latents: int, wanted: bool | None) -> bool:
    """Whether these input channels are those of super resolution: latents, image and mask, low resolution and mask.

    Raises:
        UserError: they are those of neither kind, or not of the wanted one.
    """
    kinds = {2 * latents + 1: False, 3 * latents + 2: True}
    is_low = kinds.get(found)
    if is_low is not None and wanted in (None, is_low):
        return is_low
    base, enlarging = kinds
    if wanted:
        expected = f"super resolution takes {enlarging}"
        hint = "set models.sr_dit to a transformer of super resolution, such as transformer/720p_sr_distilled"
    else:
        expected = f"t2v and i2v take {base}"
        hint = "use a t2v or i2v transformer"
        if is_low:
            hint += "; this one is for super resolution, which models.sr_dit names"
    raise UserError.at(checkpoint.path, f"takes {found} input channels, but {expected}", hint=hint)


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
