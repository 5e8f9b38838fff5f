"""The decoding stage: makes a video or a folder of images from latents. Loads only the VAE.

Frames go to the file as they are decoded; the whole video in pixels is never in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from hv15.data.animated_png import write_animation
from hv15.data.encode import write_images, write_video
from hv15.data.pixels import Pixels
from hv15.errors import UserError
from hv15.models import load_vae
from hv15.models.vae_decoding import Tiling, decoded_parts
from hv15.models.vae_pixels import to_bytes
from hv15.precision import pick_device, pick_encoder_dtype
from hv15.records.json_values import JsonObject
from hv15.records.metadata import MADE_FROM, SAMPLE
from hv15.records.outputs import ANIMATION, VIDEO, SampleOutput, output_of
from hv15.sample.files import read_latents
from hv15.sample.prompts import SampleSpec
from hv15.sample.provenance import made_from_metadata, read_made_from

if TYPE_CHECKING:
    from hv15.models import VAE


def decode_latents(
    latents_path: Path,
    vae_path: Path,
    output: Path,
    spec: SampleSpec | None = None,
    *,
    made_from: JsonObject | None = None,
    device: str = "auto",
    patch_conv: bool = False,
) -> None:
    """Load the VAE and decode a latents file with it, see `SampleDecoder.decode`.

    Args:
        spec: says how to decode; None takes the spec in the file.
        patch_conv: less memory for the same pixels, see `VAE.patch_conv`.

    Raises:
        UserError: the file cannot be used or has another size than `spec` says, or the model cannot decode it.
    """
    latents = _read(latents_path, spec, made_from)
    SampleDecoder(vae_path, latents.spec.dtype_of_vae, device=device, patch_conv=patch_conv).write(latents, output)


class SampleDecoder:
    """A VAE in memory that decodes samples one after the other.

    Args:
        dtype: `SampleSpec.dtype_of_vae`.

    Raises:
        UserError: the VAE cannot be loaded.
    """

    def __init__(self, vae_path: Path, dtype: str, *, device: str = "auto", patch_conv: bool = False) -> None:
        where = pick_device(device)
        self._vae = load_vae(vae_path, dtype=pick_encoder_dtype(dtype, where), device=where, patch_conv=patch_conv)

    def decode(
        self,
        latents_path: Path,
        output: Path,
        spec: SampleSpec | None = None,
        *,
        made_from: JsonObject | None = None,
        tells: bool = True,
    ) -> None:
        """Decode a latents file and write the result: a video, or whatever else the output's name stands for.

        Args:
            spec: says how to decode (tile, fps); None takes the spec in the file. It is written into the result,
                together with what the file says about the LoRAs.
            made_from: what the result depends on, from its spec; the latents must have been made from the same.
            tells: whether anything about how it was made is written into the result.

        Raises:
            UserError: the file cannot be used or has another size than `spec` says, or the model cannot decode it.
        """
        latents = _read(latents_path, spec, made_from)
        self.write(latents if tells else latents._replace(metadata={}), output)

    def write(self, latents: _Latents, output: Path) -> None:
        """Decode latents that were read, and write the result."""
        spec = latents.spec
        tiling = Tiling(spec.vae_sample_size, spec.vae_tile_overlap, spec.vae_seamless_tiles)
        write = _WRITERS.get(output_of(output), _write_images)
        with closing(decoded_frames(self._vae, latents.values[None], tiling, output.parent)) as frames:
            write(output, frames, spec.fps, latents.metadata)


class _Latents(NamedTuple):
    """A latents file that was checked."""

    values: Tensor
    """Unscaled float32 [C, F', h, w]."""
    spec: SampleSpec
    metadata: dict[str, str]
    """What the result will say about itself."""


def _read(path: Path, spec: SampleSpec | None, made_from: JsonObject | None) -> _Latents:
    values, spec_in_file, metadata = read_latents(path)
    # what guidance by memory came to is known only there
    spec = replace(spec, guidance_batch=spec_in_file.guidance_batch) if spec else spec_in_file
    if tuple(values.shape[1:]) != spec.latent_size:
        raise UserError.at(
            path,
            f"{tuple(values.shape[1:])} latent frames, rows, columns, but {spec.name} has {spec.latent_size}",
            hint="start the run again, which denoises the sample again",
        )
    if made_from is not None and read_made_from(metadata) != made_from["latents"]:
        raise UserError.at(
            path,
            f"made from another prompt or other settings than those of {spec.name}",
            hint="start the run again, or decode it without --spec",
        )
    metadata = {**metadata, SAMPLE: spec.to_text()}
    metadata.pop(MADE_FROM, None)  # describes the latents
    if made_from is not None:
        metadata |= made_from_metadata(made_from)
    return _Latents(values, spec, metadata)


def _write_images(folder: Path, frames: Iterable[Pixels], _fps: float, metadata: Mapping[str, str]) -> None:
    write_images(folder, frames, metadata)


_WRITERS: dict[SampleOutput | None, Callable[[Path, Iterable[Pixels], float, Mapping[str, str]], None]] = {
    VIDEO: write_video,
    ANIMATION: write_animation,
}
"""The writer of each output: (path, uint8 frames [H, W, 3], frames per second, metadata). Any other name means a folder
of images."""


@torch.no_grad()
def decoded_frames(vae: VAE, latents: Tensor, tiling: Tiling, folder: Path) -> Generator[Pixels, None, None]:
    """Decode unscaled latents [1, C, F', h, w] on the VAE's device: yield uint8 frames [H, W, 3], one after the other.

    Args:
        folder: where tiles wait, in a file without a name.

    Raises:
        UserError: the latents are of another VAE, the overlap of tiles is impossible, or the result is not finite.
        OSError: the disk is full.
    """
    if latents.shape[1] != vae.config.latent_channels:
        raise UserError(
            f"latents of {latents.shape[1]} channels, but the VAE has {vae.config.latent_channels}",
            hint="set models.vae and models.dit to models that belong together",
        )
    try:
        tiling.grid(vae, *latents.shape[-2:])
    except ValueError as error:  # the tile and its overlap come from the config
        raise UserError(
            f"sample.vae_sample_size {tiling.size}, sample.vae_tile_overlap {tiling.overlap}: {error}",
            hint="use an overlap of 0.125, 0.25 or 0.5",
        ) from error
    for pixels in decoded_parts(vae, latents.to(next(vae.parameters()).device), tiling, folder):
        if not bool(torch.isfinite(pixels).all()):
            raise UserError(
                "the VAE returned NaN or infinity",
                hint="set sample.vae_dtype to float32; if that does not help, download models.vae again",
            )
        frames = to_frames(pixels)
        del pixels
        yield from frames
        del frames


def to_frames(pixels: Tensor) -> Pixels:
    """Convert pixels [1, 3, F, H, W] to uint8 [F, H, W, 3]; values outside [-1, 1] are clamped."""
    return to_bytes(pixels)[0].cpu().numpy()
