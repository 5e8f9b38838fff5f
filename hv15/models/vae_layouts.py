"""Key names of the VAE's two checkpoint layouts, and reading its sizes from a checkpoint."""

from __future__ import annotations

import re
from itertools import count, takewhile
from typing import Literal

from hv15.errors import UserError
from hv15.models.latents import SCALING_FACTOR
from hv15.models.layouts import looks_like
from hv15.models.vae_coders import VAEConfig
from hv15.models.weights.checkpoint import Checkpoint
from hv15.records.json_values import JsonObject

VAELayout = Literal["official", "diffusers"]

_DIFFUSERS_NAMES: tuple[tuple[str, str], ...] = (
    (r"\.(down|up)\.(\d+)\.block\.", r".\1_blocks.\2.resnets."),
    (r"\.(down|up)\.(\d+)\.(down|up)sample\.", r".\1_blocks.\2.\3samplers.0."),
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.([qkv])\.", r".mid_block.attentions.0.to_\1."),
    (r"\.mid\.attn_1\.", ".mid_block.attentions.0."),
)


def name_in(layout: VAELayout, key: str) -> str:
    """Return the name in a layout of a tensor with this official name."""
    if layout == "diffusers":
        for pattern, replacement in _DIFFUSERS_NAMES:
            key = re.sub(pattern, replacement, key)
    return key


def detect_vae_layout(checkpoint: Checkpoint) -> VAELayout:
    """Tell the layout from the names of the tensors.

    Raises:
        UserError: it has neither layout.
    """
    layouts: tuple[VAELayout, ...] = ("official", "diffusers")
    for layout in layouts:
        # The VAEs of other models share many names, but not this one.
        if name_in(layout, "encoder.down.0.block.0.norm1.gamma") in checkpoint:
            return layout
    found = looks_like(checkpoint.keys())
    found = "the VAE of another model" if found == "a VAE" else found
    raise UserError.at(
        checkpoint.path,
        f"not the VAE of HunyuanVideo 1.5 in official or diffusers layout: it looks like {found}",
        hint="set models.vae to the vae/ folder of a HunyuanVideo-1.5 download, or to the .safetensors file in it",
    )


def read_config(checkpoint: Checkpoint, layout: VAELayout) -> VAEConfig:
    """Read the sizes from the shapes of the tensors.

    Raises:
        UserError: a tensor whose shape is needed is missing, or the sizes do not fit together.
    """

    def has(key: str) -> bool:
        return name_in(layout, key) in checkpoint

    def size(key: str, dimension: int = 0) -> int:
        """Return one dimension of a convolution's weight or of a norm's gamma (channels, 1, 1, 1)."""
        return checkpoint.shape(name_in(layout, key), 4 if key.endswith(".gamma") else 5)[dimension]

    try:
        levels = list(takewhile(lambda level: has(f"encoder.down.{level}.block.0.norm1.gamma"), count()))
        layers = list(takewhile(lambda block: has(f"encoder.down.0.block.{block}.norm1.gamma"), count()))
        widths = tuple(size(f"encoder.down.{level}.block.0.norm1.gamma") for level in levels)
        steps = {level: f"encoder.down.{level}.downsample.conv.conv.weight" for level in levels}
        halving = [level for level, step in steps.items() if has(step)]
        packed = [widths[level + 1] // size(steps[level]) for level in halving if level + 1 < len(levels)]
        in_time = packed.count(8)  # a step that halves time too packs 8 pixels into the channels
        _check_levels(checkpoint, len(levels), halving, in_time)
        return VAEConfig(
            in_channels=size("encoder.conv_in.conv.weight", 1),
            out_channels=size("decoder.conv_out.conv.weight"),
            latent_channels=size("decoder.conv_in.conv.weight", 1),
            block_out_channels=widths,
            layers_per_block=len(layers),
            ffactor_spatial=2 ** len(halving),
            ffactor_temporal=2**in_time,
        )
    except (KeyError, ValueError) as error:
        problem = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
        raise UserError.at(
            checkpoint.path,
            f"the sizes of the VAE cannot be read from its tensors: {problem}",
            hint="copy or download the file again: it is incomplete or of another model",
        ) from error


def _check_levels(checkpoint: Checkpoint, levels: int, halving: list[int], in_time: int) -> None:
    """Refuse a VAE whose latents do not have 16x16 pixels and 4 frames in a cell."""
    official = VAEConfig()
    if levels <= official.halvings or halving != list(range(official.halvings)) or in_time != official.time_halvings:
        raise UserError.at(
            checkpoint.path,
            f"a VAE of {levels} levels, of which {len(halving)} halve height and width "
            f"and {in_time} the frames; HunyuanVideo 1.5's has {len(official.block_out_channels)}, of which the first "
            f"{official.halvings} halve height and width and {official.time_halvings} the frames",
            hint="set models.vae to the vae/ folder of a HunyuanVideo-1.5 download, or to the .safetensors file in it",
        )


def config_json(config: VAEConfig, layout: VAELayout) -> JsonObject:
    """Return the config.json that programs of this layout expect beside the weights."""
    shared: JsonObject = {
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "latent_channels": config.latent_channels,
        "block_out_channels": list(config.block_out_channels),
        "layers_per_block": config.layers_per_block,
        "downsample_match_channel": True,
        "upsample_match_channel": True,
        "scaling_factor": SCALING_FACTOR,
    }
    if layout == "diffusers":
        return shared | {
            "_class_name": "AutoencoderKLHunyuanVideo15",
            "spatial_compression_ratio": config.ffactor_spatial,
            "temporal_compression_ratio": config.ffactor_temporal,
        }
    return shared | {
        "_class_name": "AutoencoderKLConv3D",
        "ffactor_spatial": config.ffactor_spatial,
        "ffactor_temporal": config.ffactor_temporal,
        "sample_size": 256,
        "sample_tsize": 64,
    }
