"""Writes samples with metadata: an mp4, or a folder of PNG files. Equal input gives equal bytes.

Frames are taken one at a time, so they may come from a decoder that makes them as they are asked for. Whatever fails
meanwhile, also in what makes the frames, leaves the former file as it was. Animated PNGs: `hv15.data.animated_png`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import av
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation, VideoReformatter
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
    path: Path, frames: Iterable[Pixels], fps: float = FPS, metadata: Mapping[str, str] | None = None, *, crf: int = CRF
) -> None:
    """Write an mp4: H.264, yuv420p, BT.709; the same bytes for equal input on every processor.

    Args:
        path: the file, replaced atomically.
        frames: uint8 RGB [H, W, 3], one after the other, H and W even.
        fps: frames per second.
        metadata: any keys; `read_video_metadata` returns them.
        crf: quality, 0 (lossless) to 51.

    Raises:
        UserError: a size is odd, there are no frames, or the disk is full.
    """
    rate = exact_fps(fps)
    with atomic_path(path) as temporary:
        frames, (height, width) = first_size(path, frames)
        if height % 2 or width % 2:
            raise UserError.at(
                path, f"frames of {width}x{height} pixels cannot be written", hint="use multiples of 16 as sizes"
            )
        _write_mp4(temporary, frames, (height, width), rate, metadata or {}, crf)


def first_size(path: Path, frames: Iterable[Pixels]) -> tuple[Iterator[Pixels], tuple[int, int]]:
    """Return the frames [H, W, 3] and the height and width of the first one, which are to be those of all.

    Raises:
        UserError: there are no frames for the file `path`.
    """
    each = iter(frames)
    for first in each:
        return _following(first, each), (first.shape[0], first.shape[1])
    raise UserError.at(path, "no frames, which cannot be written", hint="use at least one frame")


def _following(first: Pixels, others: Iterator[Pixels]) -> Iterator[Pixels]:
    """Yield all frames [H, W, 3]. Unlike itertools.chain, it does not keep the first one."""
    yield first
    del first
    yield from others


def _write_mp4(
    path: Path,
    frames: Iterable[Pixels],
    size: tuple[int, int],
    rate: Fraction,
    metadata: Mapping[str, str],
    crf: int,
) -> None:
    """Write frames [H, W, 3] of this height and width."""
    options = {"movflags": "use_metadata_tags+faststart", "fflags": "+bitexact"}
    with av.open(str(path), "w", format="mp4", options=options) as container:
        container.metadata.update(metadata)
        x264 = {"crf": str(crf), "preset": "medium", "x264-params": X264_PARAMS}
        stream = container.add_stream("libx264", rate=rate, options=x264)
        context = stream.codec_context
        context.height, context.width = size
        context.pix_fmt, context.thread_count = "yuv420p", _THREADS
        context.time_base = 1 / rate
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        convert = VideoReformatter()  # one for each frame would start its threads each time
        for number, pixels in enumerate(frames):
            frame = convert.reformat(
                av.VideoFrame.from_ndarray(pixels, "rgb24"),
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
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", pnginfo=text_chunks(metadata or {}))


def text_chunks(metadata: Mapping[str, str]) -> PngImagePlugin.PngInfo:
    """Return the chunks of a PNG file that hold text."""
    chunks = PngImagePlugin.PngInfo()
    for key, value in metadata.items():
        chunks.add_itxt(key, value)
    return chunks


def write_images(folder: Path, frames: Iterable[Pixels], metadata: Mapping[str, str] | None = None) -> None:
    """Write a folder of PNG files 0000.png, 0001.png, ... atomically.

    Args:
        folder: replaced if it holds only such files.
        frames: uint8 RGB [H, W, 3], one after the other.
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
