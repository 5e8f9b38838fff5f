"""The first frame of an i2v sample: from an image file to the VAE's latent and SigLIP's states."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from hv15.data import read_image
from hv15.errors import UserError
from hv15.models.fingerprint import model_fingerprint
from hv15.sample.prompts import SampleSpec

if TYPE_CHECKING:
    from hv15.models import VAE
    from hv15.models.vision import ImageEncoder


def cover_crop(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize an image (uint8 [H, W, 3]) with Lanczos until it covers height x width, and cut out the centre.

    Lanczos in both directions and the roundings are the official sampler's.
    """
    rows, columns = image.shape[:2]
    factor = max(width / columns, height / rows)
    size = (round(columns * factor), round(rows * factor))  # PIL's order
    resized = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    return np.asarray(resized.crop((left, top, left + width, top + height)))


def first_frame(spec: SampleSpec, root: Path) -> np.ndarray:
    """Read the image of an i2v sample at the size of the video: uint8 [height, width, 3]; `root` is the project folder.

    Raises:
        UserError: it cannot be read, or is not the image that the sample was planned with.
    """
    if spec.image is None:
        raise ValueError(f"{spec.name}: a {spec.task} sample has no first frame")
    path = root / spec.image.path
    image = read_image(path)
    if model_fingerprint(path) != spec.image.fingerprint:
        raise UserError(f"{path}: changed since {spec.name} was planned", hint="run the same snakemake command again")
    return cover_crop(image, spec.height, spec.width)


@torch.no_grad()
def encode_condition(spec: SampleSpec, root: Path, vae: VAE, image_encoder: ImageEncoder) -> dict[str, Tensor]:
    """Encode the first frame of an i2v sample, on the devices of the two models.

    Returns:
        `latents` [C, 1, h, w] (posterior mode, unscaled, never tiled) and `vision` [729, 1152], float32 on the CPU.
    """
    image = first_frame(spec, root)
    parameter = next(vae.parameters())
    pixels = torch.tensor(image, device=parameter.device).to(parameter.dtype) / 127.5 - 1
    latents = vae.encode(rearrange(pixels, "h w c -> 1 c 1 h w"))
    vision = image_encoder.encode([image])
    return {"latents": latents[0].float().cpu(), "vision": vision[0].float().cpu()}
