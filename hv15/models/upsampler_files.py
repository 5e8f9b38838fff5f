"""Loading the latent upsamplers: official files, and those of ComfyUI, which have the same names. Shapes tell sizes."""

from __future__ import annotations

from itertools import count, takewhile
from pathlib import Path

import torch

from hv15.errors import UserError
from hv15.models.super_resolution import UPSAMPLER_HINT, upsampler_resolution
from hv15.models.upsamplers import (
    LatentUpsampler,
    Upsampler720,
    Upsampler720Config,
    Upsampler1080,
    Upsampler1080Config,
)
from hv15.models.weights.checkpoint import Checkpoint, check_keys, load_into, open_checkpoint

_SHORTCUT, _COMFYUI_SHORTCUT = ".nin_shortcut.", ".nin_shortcut.conv."
"""In files that ComfyUI saved again, this convolution has the other name."""


def load_upsampler(path: Path | str, *, device: torch.device | str = "cpu") -> LatentUpsampler:
    """Load a latent upsampler, frozen and in eval mode, tensor by tensor, in float32.

    Args:
        path: a .safetensors file, or a folder that holds it and config.json.

    Raises:
        UserError: the file is missing, damaged or of another model; tensors are missing, unexpected or NaN.
    """
    checkpoint = open_checkpoint(Path(path))
    config = read_upsampler_config(checkpoint)
    with torch.device("meta"):
        upsampler = Upsampler720(config) if isinstance(config, Upsampler720Config) else Upsampler1080(config)
    names = {key: _name(checkpoint, key) for key in upsampler.state_dict()}
    check_keys(names.values(), checkpoint, checkpoint.path, what=f"latent upsampler to {upsampler.resolution}")
    tensors = ((key, checkpoint.tensor(name, device=_source(device))) for key, name in names.items())
    load_into(upsampler, tensors, dtype=torch.float32, device=device, where=checkpoint.path)
    return upsampler


def read_upsampler_config(checkpoint: Checkpoint) -> Upsampler720Config | Upsampler1080Config:
    """Read which of the two networks a checkpoint holds, and its sizes, from names and shapes.

    Raises:
        UserError: it is another model, or its sizes contradict one another.
    """
    if upsampler_resolution(checkpoint) == "720p":
        hidden, channels = checkpoint.shape("in_conv.conv.weight", 5)[:2]
        blocks = _numbered(checkpoint, "blocks.{}.block.0.conv.weight")
        return Upsampler720Config(channels, hidden, blocks, _adds_its_input(checkpoint))
    channels = checkpoint.shape("conv_in.conv.weight", 5)[1]
    levels = range(_numbered(checkpoint, "up.{}.block.0.conv1.conv.weight"))
    widths = tuple(checkpoint.shape(f"up.{level}.block.0.conv1.conv.weight", 5)[0] for level in levels)
    try:
        return Upsampler1080Config(channels, widths, _numbered(checkpoint, "up.0.block.{}.conv1.conv.weight"))
    except ValueError as error:
        raise UserError.at(checkpoint.path, str(error), hint=UPSAMPLER_HINT) from error


def _numbered(checkpoint: Checkpoint, pattern: str) -> int:
    """Return how many numbers, from 0 on, the pattern has a tensor for."""
    return sum(1 for _ in takewhile(lambda number: pattern.format(number) in checkpoint, count()))


def _adds_its_input(checkpoint: Checkpoint) -> bool:
    """Return `global_residual` of config.json; ComfyUI's single files have none and do not add it."""
    value = checkpoint.config.get("global_residual", False)
    if not isinstance(value, bool):
        found = f"config.json: global_residual is {value!r:.60}, expected true or false"
        raise UserError.at(checkpoint.path, found, hint="download config.json again")
    return value


def _name(checkpoint: Checkpoint, key: str) -> str:
    """Return the name in the file of a tensor with this official name."""
    other = key.replace(_SHORTCUT, _COMFYUI_SHORTCUT)
    return other if other in checkpoint and key not in checkpoint else key


def _source(device: torch.device | str) -> str:
    """Return where tensors are read to: nothing is read for a network on the meta device."""
    return "meta" if torch.device(device).type == "meta" else "cpu"
