"""Encodes the first frame of an i2v sample: from an image file to the VAE's latent and SigLIP's states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class FirstImages:
    """What two models get of a sample's first image."""

    frame: Pixels
    """For the VAE: uint8 [height, width, 3], at the size of the video."""
    seen: Pixels
    """For the image encoder: uint8 [H, W, 3]."""


def first_images(spec: SampleSpec, root: Path) -> FirstImages:
    """Read the image of an i2v sample; `root` is the project folder.

    The image encoder sees the first frame; for super resolution, as in the official program, the image at the official
    size whose aspect ratio is nearest to its own.

    Raises:
        UserError: it cannot be read, has an extreme aspect ratio, or has changed since the sample was planned.
    """
    image = _image(spec, root)
    frame = cover_crop(image, spec.height, spec.width)
    if spec.enlarges is None:
        return FirstImages(frame, frame)
    rows, columns = image.shape[:2]
    return FirstImages(frame, cover_crop(image, *official_size(spec.enlarges.resolution, columns, rows)))


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
    images = first_images(spec, root)
    encoder = FirstFrameEncoder(vae_path, image_encoder_path, spec, device=device, patch_conv=patch_conv)
    (tensors,) = encoder.encode([images])
    write_tensors(output, tensors, provenance(spec, made_from, ()))


class FirstFrameEncoder:
    """Encodes first frames, any number with one load of each model.

    Args:
        spec: a sample with the number formats of all of them.
        patch_conv: less memory for the same latents, see `VAE.patch_conv`.
    """

    def __init__(
        self,
        vae_path: Path,
        image_encoder_path: Path,
        spec: SampleSpec,
        *,
        device: str = "auto",
        patch_conv: bool = False,
    ) -> None:
        self._vae_path, self._image_encoder_path, self._patch_conv = vae_path, image_encoder_path, patch_conv
        self._device = pick_device(device)
        self._dtype = pick_encoder_dtype(spec.dtype, self._device)
        self._vae_dtype = pick_encoder_dtype(spec.dtype_of_vae, self._device)

    def encode(self, images: Sequence[FirstImages]) -> list[dict[str, Tensor]]:
        """Encode first images, each of its own size, with one model in memory at a time.

        Returns:
            Of each, what a condition file holds: `latents` [C, 1, H/16, W/16], unscaled, and `vision` [729, 1152].

        Raises:
            UserError: a model cannot be loaded.
        """
        vae = load_vae(self._vae_path, dtype=self._vae_dtype, device=self._device, patch_conv=self._patch_conv)
        latents = [encode_frame(vae, each.frame) for each in images]
        del vae
        encoder = load_image_encoder(self._image_encoder_path, dtype=self._dtype, device=self._device)
        vision = [encoder.encode([each.seen])[0].float() for each in images]
        return [{"latents": one, "vision": other} for one, other in zip(latents, vision, strict=True)]


@torch.no_grad()
def encode_frame(vae: VAE, image: Pixels) -> Tensor:
    """Encode one uint8 [H, W, 3] image, untiled: unscaled latent [C, 1, H/16, W/16] (posterior mode), float32."""
    device = next(vae.parameters()).device
    frames = torch.from_numpy(image)[None, None].to(device)  # (1, 1, H, W, 3)
    return vae.encode(from_bytes(frames, vae.dtype))[0].float()
