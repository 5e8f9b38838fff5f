"""SigLIP states of the first frame, which the transformer sees in addition to its latent.

- The states are the last layer's output after `post_layernorm`; the pooling head is neither built nor read.
- The layers are those of transformers (so400m, patch 14, 384 pixels: 27 x 27 = 729 tokens).
- Sizes come from the tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn

from hv15.errors import UserError
from hv15.models.encoder_files import fill, written_config, wrong_model
from hv15.models.weights.checkpoint import Checkpoint, open_checkpoint

_PREFIXES = ("vision_model.", "")  # a folder saved by transformers 5 may have no prefix
_PATCHES = "embeddings.patch_embedding.weight"
_HEAD = "head."
_TEXT_HALF = ("text_model.", "logit_scale", "logit_bias")  # in a folder that holds all of SigLIP
_HINT = (
    "set models.image_encoder to SigLIP so400m patch14-384: sigclip_vision_patch14_384.safetensors of ComfyUI, "
    "or the image_encoder folder of FLUX.1-Redux-dev"
)


@dataclass(frozen=True)
class VisionConfig:
    """Sizes of a SigLIP vision tower; the defaults are those of so400m patch14-384."""

    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_layers: int = 27
    num_heads: int = 16
    patch_size: int = 14
    image_size: int = 384
    """Height and width that images are resized to, in pixels; the last 6 of 384 lie outside the 27 x 27 patches."""

    @property
    def num_tokens(self) -> int:
        """Number of tokens of an image: 729."""
        return (self.image_size // self.patch_size) ** 2


def load_image_encoder(
    path: str | Path, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> ImageEncoder:
    """Load SigLIP's vision tower from one file or a Hugging Face folder.

    Args:
        dtype: None keeps the file's. The official program uses float16.

    Raises:
        UserError: the file is damaged or another model.
    """
    checkpoint = open_checkpoint(Path(path))
    config, prefix = read_vision_config(checkpoint)
    with torch.device("meta"):
        model = build_vision_model(config)
    names = {name: prefix + name for name in model.state_dict()}
    unused = (prefix + _HEAD, *_TEXT_HALF)
    fill(model, checkpoint, names, unused=unused, what="image encoder", dtype=dtype, device=device)
    positions = torch.arange(config.num_tokens, device=device)[None]  # in no checkpoint
    model.get_submodule("embeddings").register_buffer("position_ids", positions, persistent=False)
    return ImageEncoder(model, config)


class ImageEncoder:
    """Encodes images into SigLIP states; frozen."""

    def __init__(self, model: nn.Module, config: VisionConfig) -> None:
        self.model = model
        self.config = config

    @torch.no_grad()
    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Return the states of the images, [B, 729, 1152], in the model's dtype and on its device.

        Args:
            images: uint8 [H, W, 3] each, already cropped to the bucket; sizes may differ.
        """
        weight = self.model.get_parameter(_PATCHES)
        pixels = torch.stack([siglip_pixels(image, self.config.image_size) for image in images])  # (B, 3, S, S)
        return self.model(pixel_values=pixels.to(weight)).last_hidden_state


def siglip_pixels(image: NDArray[np.uint8], size: int) -> Tensor:
    """Resize a uint8 [H, W, 3] image for SigLIP: [3, size, size] in [-1, 1], bicubic, without keeping the aspect."""
    from PIL import Image

    resized = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
    return rearrange(torch.from_numpy(np.array(resized)), "h w c -> c h w").float() / 127.5 - 1


def build_vision_model(config: VisionConfig) -> nn.Module:
    """Build the vision tower without its pooling head, on the current device, with random weights."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    return SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            patch_size=config.patch_size,
            image_size=config.image_size,
            vision_use_head=False,
        )
    )


def read_vision_config(checkpoint: Checkpoint) -> tuple[VisionConfig, str]:
    """Return the sizes of a SigLIP checkpoint, read from its tensors, and the prefix of its names.

    The number of heads and the image size come from a config.json beside the tensors. Without it, heads have 72
    channels and 729 tokens mean 384 pixels, as in so400m.

    Raises:
        UserError: it is another model, or the sizes contradict one another.
    """
    keys = checkpoint.keys()
    prefix = next((prefix for prefix in _PREFIXES if prefix + _PATCHES in checkpoint), None)
    if prefix is None:
        raise wrong_model(checkpoint, "a SigLIP image encoder", _HINT)
    start = f"{prefix}encoder.layers."
    layers = {int(key.removeprefix(start).split(".")[0]) for key in keys if key.startswith(start)}
    try:
        hidden_size, _, patch_size, _ = checkpoint.shape(prefix + _PATCHES, 4)
        intermediate_size, _ = checkpoint.shape(f"{start}0.mlp.fc1.weight", 2)
        tokens, _ = checkpoint.shape(f"{prefix}embeddings.position_embedding.weight", 2)
    except KeyError as error:
        raise wrong_model(checkpoint, "a SigLIP image encoder", _HINT) from error
    official = VisionConfig()
    written = written_config(checkpoint, "siglip").part("vision_config")
    like_official = (tokens, patch_size) == (official.num_tokens, official.patch_size)
    image_size = official.image_size if like_official else isqrt(tokens) * patch_size
    config = VisionConfig(
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_layers=max(layers) + 1,
        num_heads=written.integer("num_attention_heads", hidden_size * official.num_heads // official.hidden_size),
        patch_size=patch_size,
        image_size=written.integer("image_size", image_size),
    )
    if not config.num_heads or hidden_size % config.num_heads or config.num_tokens != tokens:
        raise UserError.at(
            checkpoint.path,
            f"width {hidden_size}, {tokens} positions and patches of {patch_size} pixels do not fit "
            f"{config.num_heads} heads and images of {config.image_size} pixels",
            hint="if it is not so400m patch14-384, put the model's config.json beside the file",
        )
    return config, prefix
