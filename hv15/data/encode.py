"""Writes samples with metadata: an mp4, an animated PNG, or a folder of PNG files. Equal input gives equal bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import av
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation
from PIL import Image, PngImagePlugin

from hv15.atomic import atomic_folder, atomic_path
from hv15.data.frames import exact_fps
from hv15.data.pixels import Pixels
from hv15.data.video import open_video
from hv15.errors import UserError
from hv15.grid import FPS

CRF = 17
"""x264's constant rate factor; 17 is visually lossless."""

# x264's output depends on the number of threads and the processor's instructions, and with AVX-512 on uninitialised
# memory. These settings make it equal on all machines.
_THREADS = 4
X264_PARAMS = "cpu-independent=1"
_INTERPOLATION = (
    Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP | Interpolation.BITEXACT
)
_CONTAINER_KEYS = {"major_brand", "minor_version", "compatible_brands", "encoder"}


def write_video(
    path: Path, frames: Pixels, fps: float = FPS, metadata: Mapping[str, str] | None = None, *, crf: int = CRF
) -> None:
    """Write an mp4: H.264, yuv420p, BT.709; the same bytes for equal input on every processor.

    Args:
        path: the file, replaced atomically.
        frames: uint8 RGB [F, H, W, 3], H and W even.
        fps: frames per second.
        metadata: any keys; `read_video_metadata` returns them.
        crf: quality, 0 (lossless) to 51.

    Raises:
        UserError: a size is odd, there are no frames, or the disk is full.
    """
    count, height, width = frames.shape[:3]
    if not count or height % 2 or width % 2:
        raise UserError.at(
            path, f"{count} frames of {width}x{height} pixels cannot be written", hint="use multiples of 16 as sizes"
        )
    rate = exact_fps(fps)
    options = {"movflags": "use_metadata_tags+faststart", "fflags": "+bitexact"}
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4", options=options) as container:
        container.metadata.update(metadata or {})
        x264 = {"crf": str(crf), "preset": "medium", "x264-params": X264_PARAMS}
        stream = container.add_stream("libx264", rate=rate, options=x264)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.time_base, context.thread_count = 1 / rate, _THREADS
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(
                format="yuv420p",
                src_color_range=ColorRange.JPEG,
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation=_INTERPOLATION,
            )
            frame.pts, frame.time_base = number, Fraction(1 / rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def read_video_metadata(path: Path) -> dict[str, str]:
    """Return the metadata that `write_video` stored.

    Raises:
        MediaError: the file is missing or is not a video.
    """
    with open_video(path) as (container, _):
        return {key: value for key, value in container.metadata.items() if key not in _CONTAINER_KEYS}


def write_image(path: Path, pixels: Pixels, metadata: Mapping[str, str] | None = None) -> None:
    """Write one PNG file atomically.

    Args:
        path: the file.
        pixels: uint8 RGB [H, W, 3].
        metadata: written as text chunks.

    Raises:
        UserError: the disk is full or the file cannot be written.
    """
    chunks = PngImagePlugin.PngInfo()
    for key, value in (metadata or {}).items():
        chunks.add_itxt(key, value)
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", pnginfo=chunks)


def write_animation(path: Path, frames: Pixels, fps: float = 24.0, metadata: Mapping[str, str] | None = None) -> None:
    """Write an animated PNG, which loops forever, atomically.

    Args:
        path: the file.
        frames: uint8 RGB [F, H, W, 3].
        fps: frames per second.
        metadata: written as text chunks.

    Raises:
        UserError: the disk is full or the file cannot be written.
    """
    chunks = PngImagePlugin.PngInfo()
    for key, value in (metadata or {}).items():
        chunks.add_itxt(key, value)
    first, *others = (Image.fromarray(pixels) for pixels in frames)
    with atomic_path(path) as temporary:
        first.save(
            temporary, format="PNG", pnginfo=chunks, save_all=True, append_images=others, duration=1000 / fps, loop=0
        )


def write_images(folder: Path, frames: Pixels, metadata: Mapping[str, str] | None = None) -> None:
    """Write a folder of PNG files 0000.png, 0001.png, ... atomically.

    Args:
        folder: replaced if it holds only such files.
        frames: uint8 RGB [F, H, W, 3].
        metadata: written as text chunks into each file.

    Raises:
        UserError: the folder holds other files, or the disk is full.
    """
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    others = [name for name in names if not re.fullmatch(r"\d{4,}\.png", name)]
    if others:
        raise UserError.at(
            folder,
            f"holds other files (first {others[0]}), which the images would replace",
            hint="choose a folder that does not exist yet",
        )
    with atomic_folder(folder) as temporary:
        for number, pixels in enumerate(frames):
            write_image(temporary / f"{number:04d}.png", pixels, metadata)
