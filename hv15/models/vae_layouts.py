"""Key names of the VAE's two checkpoint layouts, and its sizes as they stand in a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any, Literal

from hv15.errors import UserError
from hv15.models.vae_coders import VAEConfig

Layout = Literal["official", "diffusers"]

_OFFICIAL = "encoder.down.0.block.0.conv1.conv.weight"
_DIFFUSERS = "encoder.down_blocks.0.resnets.0.conv1.conv.weight"
_TO_DIFFUSERS: tuple[tuple[str, str], ...] = (
    (r"\.(down|up)\.(\d+)\.block\.", r".\1_blocks.\2.resnets."),
    (r"\.(down|up)\.(\d+)\.(down|up)sample\.", r".\1_blocks.\2.\3samplers.0."),
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.", ".mid_block.attentions.0."),
    (r"\.attentions\.0\.([qkv])\.", r".attentions.0.to_\1."),
)
_TO_OFFICIAL: tuple[tuple[str, str], ...] = (
    (r"\.(down|up)_blocks\.(\d+)\.resnets\.", r".\1.\2.block."),
    (r"\.(down|up)_blocks\.(\d+)\.(down|up)samplers\.0\.", r".\1.\2.\3sample."),
    (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
    (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
    (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
    (r"\.attn_1\.to_([qkv])\.", r".attn_1.\1."),
)
# What a file without either layout may be: a piece of a key, and what it tells.
_OTHERS = (
    ("double_blocks.", "a HunyuanVideo transformer (official or ComfyUI layout)"),
    ("transformer_blocks.", "a transformer in diffusers layout"),
    ("lora_", "a LoRA"),
    ("visual.", "the Qwen2.5-VL text encoder"),
    ("vision_model.", "the SigLIP image encoder"),
    ("encoder.block.", "the ByT5 glyph encoder"),
    ("post_quant_conv", "the VAE of another model (HunyuanVideo 1.0, Stable Diffusion)"),
    ("conv2.weight", "the VAE of another model (Wan)"),
)


def to_diffusers(key: str) -> str:
    """Official key name -> diffusers key name."""
    return _rename(key, _TO_DIFFUSERS)


def to_official(key: str) -> str:
    """Diffusers key name -> official key name."""
    return _rename(key, _TO_OFFICIAL)


def _rename(key: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def detect_layout(keys: Collection[str], where: object) -> Layout:
    """Tell the layout from the names of the tensors.

    Raises:
        UserError: neither layout; the message says what the file looks like.
    """
    if _OFFICIAL in keys:
        return "official"
    if _DIFFUSERS in keys and "post_quant_conv.weight" not in keys:
        return "diffusers"
    guess = next((name for piece, name in _OTHERS if any(piece in key for key in keys)), None)
    found = f"it looks like {guess}" if guess else f"its first tensors are {', '.join(list(keys)[:3]) or 'none'}"
    raise UserError(
        f"{where}: not the VAE of HunyuanVideo 1.5 in official or diffusers layout; {found}",
        hint="models.vae wants the vae/ folder of a HunyuanVideo-1.5 download, or the one .safetensors file in it",
    )


def sizes_of(keys: Collection[str], shape: Callable[[str], tuple[int, ...]], where: object) -> VAEConfig:
    """Read the sizes from the tensors themselves.

    Args:
        keys: official names. shape: gives the shape of one.

    Raises:
        UserError: a tensor that tells a size is missing, or the sizes do not fit together.
    """
    try:
        levels = 1 + max(int(match[1]) for key in keys if (match := re.match(r"encoder\.down\.(\d+)\.", key)))
        layers = 1 + max(int(match[1]) for key in keys if (match := re.match(r"encoder\.down\.0\.block\.(\d+)\.", key)))
        widths = tuple(shape(f"encoder.down.{level}.block.0.conv1.conv.weight")[0] for level in range(levels))
        halved = [level for level in range(levels) if f"encoder.down.{level}.downsample.conv.conv.weight" in keys]
        factors = [
            widths[level + 1] // shape(f"encoder.down.{level}.downsample.conv.conv.weight")[0] for level in halved
        ]
        return VAEConfig(
            in_channels=shape("encoder.conv_in.conv.weight")[1],
            out_channels=shape("decoder.conv_out.conv.weight")[0],
            latent_channels=shape("decoder.conv_in.conv.weight")[1],
            block_out_channels=widths,
            layers_per_block=layers,
            ffactor_spatial=2 ** len(halved),
            ffactor_temporal=2 ** factors.count(8),
        )
    except (KeyError, IndexError, ZeroDivisionError, ValueError) as error:
        raise UserError(
            f"{where}: the sizes of the VAE cannot be read from its tensors: {error}",
            hint="the file is incomplete or of another model; copy or download it again",
        ) from error


def config_json(config: VAEConfig, layout: Layout, scaling_factor: float) -> dict[str, Any]:
    """The config.json that programs of this layout expect beside the weights."""
    shared = {
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "latent_channels": config.latent_channels,
        "block_out_channels": list(config.block_out_channels),
        "layers_per_block": config.layers_per_block,
        "scaling_factor": scaling_factor,
    }
    if layout == "diffusers":
        return shared | {
            "_class_name": "AutoencoderKLHunyuanVideo15",
            "spatial_compression_ratio": config.ffactor_spatial,
            "temporal_compression_ratio": config.ffactor_temporal,
            "downsample_match_channel": True,
            "upsample_match_channel": True,
        }
    return shared | {
        "_class_name": "AutoencoderKLConv3D",
        "ffactor_spatial": config.ffactor_spatial,
        "ffactor_temporal": config.ffactor_temporal,
        "downsample_match_channel": True,
        "upsample_match_channel": True,
        "sample_size": 256,
        "sample_tsize": 64,
        "shift_factor": None,
    }
