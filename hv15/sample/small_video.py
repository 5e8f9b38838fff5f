"""What super resolution enlarges: the latents of a sample, or a video file, which is encoded first."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hv15.choices import Resolution
from hv15.data.decode import VideoReader
from hv15.data.encode import read_video_metadata
from hv15.data.media import VIDEO_SUFFIXES, MediaInfo
from hv15.data.pixels import Fitter, Pixels
from hv15.data.probe import probe
from hv15.errors import UserError
from hv15.grid import PIXELS_PER_CELL, encodable_frames, video_size
from hv15.models import load_vae
from hv15.models.vae_pixels import encode_clips
from hv15.precision import pick_device, pick_encoder_dtype
from hv15.records.json_values import RecordError, parse_object
from hv15.records.metadata import SAMPLE
from hv15.sample.files import read_latents
from hv15.sample.prompts import SampleSpec
from hv15.sample.resolutions import official_size

_HINT = "name a .latents.safetensors file of hv15, or a video such as an mp4"


@dataclass(frozen=True)
class SmallVideo:
    """A video that is enlarged; see `look`."""

    path: Path
    frames: int
    """The number of frames that are enlarged, 4k+1."""
    height: int
    width: int
    """Height and width in pixels, multiples of 16."""
    fps: float
    latents: Tensor | None
    """Unscaled, [C, F', h, w]; None for a video file."""
    info: MediaInfo | None
    """Of a video file."""

    @property
    def change(self) -> str:
        """How the frames differ from those of the file, in words; "" if they do not."""
        if self.info is None:
            return ""
        height, width, count = self.info.height, self.info.width, self.info.timeline.count(_rate(self.info))
        changes = []
        if (height, width) != (self.height, self.width):
            changes.append(f"resized and cropped from {width}x{height} to {self.width}x{self.height} pixels")
        if count != self.frames:
            changes.append(f"cut from {count} to {self.frames} frames, since the model takes 4k+1")
        return " and ".join(changes)


def look(path: Path, low: Resolution) -> SmallVideo:
    """Look at a file that `origin` knows: latents are read, of a video sizes and times.

    A video whose sides are multiples of 16 keeps its size. Any other is resized and cropped to an official size.

    Args:
        low: the resolution of those sizes.

    Raises:
        UserError: the file is missing or damaged.
    """
    if path.suffix == ".safetensors":
        latents, spec, _ = read_latents(path)
        return SmallVideo(path, *video_size(*latents.shape[1:]), spec.fps, latents, None)
    info = probe(path, "video")
    height, width = info.height, info.width
    if height % PIXELS_PER_CELL or width % PIXELS_PER_CELL:
        height, width = official_size(low, width, height)
    rate = _rate(info)
    return SmallVideo(path, encodable_frames(info.timeline.count(rate)), height, width, float(rate), None, info)


def origin(path: Path) -> SampleSpec | None:
    """Return the sample that a file says it holds; None for a video that says nothing, or in another way.

    Raises:
        UserError: the file is missing or damaged, or neither latents of hv15 nor a video.
    """
    if not path.is_file():
        raise UserError.at(path, "is a folder" if path.is_dir() else "no such file", hint=_HINT)
    if path.suffix == ".safetensors":
        return read_latents(path)[1]
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise UserError.at(path, "is neither a video nor latents", hint=_HINT)
    text = read_video_metadata(path).get(SAMPLE)
    try:
        return None if text is None else SampleSpec.from_json(parse_object(text))
    except (RecordError, UserError):  # of another version of hv15
        return None


def _rate(info: MediaInfo) -> Fraction:
    """The video's own frame rate, or the mean one."""
    return info.timeline.rate or info.timeline.fps


def read_frames(video: SmallVideo) -> Pixels:
    """Read the frames of a video file, uint8 [F, H, W, 3].

    Raises:
        UserError: the file is damaged.
    """
    assert video.info is not None
    rate, timeline = _rate(video.info), video.info.timeline
    out = np.empty((video.frames, video.height, video.width, 3), dtype=np.uint8)
    previous = -1
    with VideoReader(video.info, Fitter((video.height, video.width))) as reader:
        for number in range(video.frames):
            source = timeline.source_frame(number, rate)
            out[number] = reader.pixels(source) if source != previous else out[number - 1]
            previous = source
    return out


@torch.no_grad()
def small_latents(
    video: SmallVideo, vae_path: Path, spec: SampleSpec, *, device: str = "auto", patch_conv: bool = False
) -> Tensor:
    """Return the video's unscaled latents, float32 [1, C, F', h, w]; a video file is encoded (posterior mode).

    Args:
        spec: says in which tiles and which number format.
        patch_conv: less memory for the same latents, see `VAE.patch_conv`.

    Raises:
        UserError: the file is damaged, or the VAE cannot be loaded.
    """
    if video.latents is not None:
        return video.latents[None].float()
    where = pick_device(device)
    vae = load_vae(vae_path, dtype=pick_encoder_dtype(spec.dtype_of_vae, where), device=where, patch_conv=patch_conv)
    frames = torch.from_numpy(read_frames(video))[None].to(where)  # (1, F, H, W, 3)
    return encode_clips(vae, frames, spec.vae_sample_size, spec.vae_tile_overlap).float().cpu()
