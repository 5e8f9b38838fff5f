"""Encodes the first frame of an i2v sample: from an image file to the VAE's latent and SigLIP's states."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hv15.data.buckets import check_shape
from hv15.data.images import read_image
from hv15.data.pixels import Pixels
from hv15.errors import UserError
from hv15.models import load_image_encoder, load_vae
from hv15.models.vae_pixels import from_bytes
from hv15.models.weights.fingerprint import model_fingerprint
from hv15.precision import pick_device, pick_encoder_dtype
from hv15.records.json_values import JsonObject
from hv15.sample.files import write_tensors
from hv15.sample.prompts import SampleSpec
from hv15.sample.provenance import provenance
from hv15.sample.resolutions import official_size

if TYPE_CHECKING:
    from hv15.models import VAE


def cover_crop(image: Pixels, height: int, width: int) -> Pixels:
    """Resize an image (uint8 [H, W, 3]) with Lanczos to cover height x width pixels, and crop the centre.

    The filter, for enlarging and for reducing, and the rounding are those of the official sampler.
    """
    rows, columns = image.shape[:2]
    factor = max(width / columns, height / rows)
    size = (round(columns * factor), round(rows * factor))  # PIL's order
    resized = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    return np.array(
        resized.crop((left, top, left + width, top + height))
    )  # copied, because torch needs a writable array


def first_frame(spec: SampleSpec, root: Path) -> Pixels:
    """Read the image of an i2v sample at the size of the video: uint8 [height, width, 3]; `root` is the project folder.

    Raises:
        UserError: it cannot be read, has an extreme aspect ratio, or has changed since the sample was planned.
    """
    return cover_crop(_image(spec, root), spec.height, spec.width)


def _image(spec: SampleSpec, root: Path) -> Pixels:
    """Read the image of an i2v sample, uint8 [H, W, 3], and check it."""
    if spec.image is None:
        raise UserError(f"{spec.name}: a {spec.task} sample has no first frame", hint="denoise it without --condition")
    path = root / spec.image.path
    image = read_image(path)
    if model_fingerprint(path) != spec.image.fingerprint:
        raise UserError.at(path, f"changed since {spec.name} was planned", hint="start the run again")
    try:
        check_shape(*image.shape[:2])
    except UserError as error:
        raise UserError.at(path, error.message, hint=error.hint) from error
    return image


def _seen(spec: SampleSpec, image: Pixels, frame: Pixels) -> Pixels:
    """Return what the image encoder sees, uint8 [H, W, 3], of an image and of the first frame made from it.

    That is the frame; for super resolution, as in the official program, the image at the official size whose aspect
    ratio is nearest to its own.
    """
    if spec.enlarges is None:
        return frame
    rows, columns = image.shape[:2]
    return cover_crop(image, *official_size(spec.enlarges.resolution, columns, rows))


def write_condition(
    spec: SampleSpec,
    root: Path,
    vae_path: Path,
    image_encoder_path: Path,
    output: Path,
    *,
    made_from: JsonObject,
    device: str = "auto",
    patch_conv: bool = False,
) -> None:
    """Encode the first frame of an i2v sample into `<name>.condition.safetensors`.

    Args:
        made_from: what the file depends on, from the stage's spec.
        patch_conv: less memory for the same latent, see `VAE.patch_conv`.

    Raises:
        UserError: the image or a model cannot be used, or the image has changed since the sample was planned.
    """
    latents, vision = encode_condition(spec, root, vae_path, image_encoder_path, device=device, patch_conv=patch_conv)
    write_tensors(output, {"latents": latents, "vision": vision}, provenance(spec, made_from, ()))


def encode_condition(
    spec: SampleSpec,
    root: Path,
    vae_path: Path,
    image_encoder_path: Path,
    *,
    device: str = "auto",
    patch_conv: bool = False,
) -> tuple[Tensor, Tensor]:
    """Encode the first frame of an i2v sample, with one model in memory at a time.

    Returns:
        Its latent [C, 1, h, w], unscaled, and the image encoder's states [729, 1152]; float32.

    Raises:
        UserError: as `write_condition`.
    """
    image = _image(spec, root)
    frame = cover_crop(image, spec.height, spec.width)
    where = pick_device(device)
    dtype = pick_encoder_dtype(spec.dtype, where)
    latents = encode_frame(load_vae(vae_path, dtype=dtype, device=where, patch_conv=patch_conv), frame)
    encoder = load_image_encoder(image_encoder_path, dtype=dtype, device=where)
    return latents, encoder.encode([_seen(spec, image, frame)])[0].float()


@torch.no_grad()
def encode_frame(vae: VAE, image: Pixels) -> Tensor:
    """Encode one uint8 [H, W, 3] image, untiled: unscaled latent [C, 1, H/16, W/16] (posterior mode), float32."""
    device = next(vae.parameters()).device
    frames = torch.from_numpy(image)[None, None].to(device)  # (1, 1, H, W, 3)
    return vae.encode(from_bytes(frames, vae.dtype))[0].float()
