"""Converts decoded frames and images to clip pixels: uint8 RGB, upright, resized to cover, centre-cropped.

Notable choices:
- swscale with its accurate options resamples both videos and images. To reduce, its area filter weights partly covered
  pixels exactly (Pillow's BOX does not); to enlarge, it uses Lanczos.
- The YUV matrix and range are those of the stream. If it does not state them, they are guessed as in players: BT.709
  from 720 lines, BT.601 below, limited range. High dynamic range is not tone-mapped.
- A long strip is cropped before it is enlarged, so memory depends on the target's size.
"""

from __future__ import annotations

import math

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from hv15.data.buckets import cover_size

Pixels = NDArray[np.uint8]

_MOSTLY_CUT = 4
"""If resizing would make so many times the wanted pixels, the source is cropped first; with buckets it never does."""

_MARGIN = 3
"""Pixels beyond the border that Lanczos uses."""

_EXACT = (
    Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP | Interpolation.BITEXACT
)
_MATRICES = {  # AVColorSpace -> swscale's name
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}


class Fitter:
    """Converts decoded frames to the pixels of one bucket. Must not be shared between threads.

    Args:
        size: the (height, width) to fill, or None to keep each frame's own size.
        background: "#rrggbb" behind transparent pixels.
        aspect: width / height of a source pixel.
    """

    def __init__(self, size: tuple[int, int] | None, background: str = "", aspect: float = 1.0) -> None:
        self.size = size
        self.background = background or "#000000"
        self.aspect = aspect
        self._convert = VideoReformatter()

    def frame(self, frame: av.VideoFrame) -> Pixels:
        """Return a decoded video frame's pixels [H, W, 3], rotated according to its display matrix."""
        if has_alpha(frame.format):
            rgba = self._rgb(frame, frame.height, frame.width, Interpolation.BICUBIC, "rgba")
            frame_rgb = av.VideoFrame.from_ndarray(composite(rgba, self.background), "rgb24")
            return self._fit(frame_rgb, frame.rotation)
        return self._fit(frame, frame.rotation)

    def image(self, pixels: Pixels) -> Pixels:
        """Resize an RGB picture [h, w, 3] to the wanted size [H, W, 3]."""
        if self.size is None or pixels.shape[:2] == self.size:
            return pixels
        return self._fit(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24"), 0)

    def _fit(self, frame: av.VideoFrame, rotation: int) -> Pixels:
        turns = round(rotation / 90) % 4
        height, width = upright_size(frame.height, frame.width, self.aspect, turns)
        target = self.size or (height, width)
        covered = cover_size(height, width, *target)
        if covered[0] * covered[1] > _MOSTLY_CUT * target[0] * target[1]:
            frame = self._middle(frame, (target[0] / covered[0], target[1] / covered[1]), turns)
            height, width = upright_size(frame.height, frame.width, self.aspect, turns)
            covered = cover_size(height, width, *target)
        shrinks = covered[0] * covered[1] <= height * width
        filter_ = Interpolation.AREA if shrinks else Interpolation.LANCZOS
        raster = covered if turns % 2 == 0 else covered[::-1]
        pixels = np.rot90(self._rgb(frame, *raster, filter_, "rgb24"), turns)
        top, left = ((have - want) // 2 for have, want in zip(covered, target, strict=True))
        return np.ascontiguousarray(pixels[top : top + target[0], left : left + target[1]])

    def _middle(self, frame: av.VideoFrame, shares: tuple[float, float], turns: int) -> av.VideoFrame:
        """Crop a frame to its middle: at least these fractions of its upright height and width."""
        pixels = self._rgb(frame, frame.height, frame.width, Interpolation.BICUBIC, "rgb24")
        cuts = []
        for length, share in zip(pixels.shape[:2], shares if turns % 2 == 0 else shares[::-1], strict=True):
            border = max(0, (length - math.ceil(length * share)) // 2 - _MARGIN)  # equal on both sides
            cuts.append(slice(border, length - border))
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[tuple(cuts)]), "rgb24")

    def _rgb(self, frame: av.VideoFrame, height: int, width: int, filter_: Interpolation, name: str) -> Pixels:
        matrix, full = source_colours(frame)
        converted = self._convert.reformat(
            frame,
            width,
            height,
            name,
            src_colorspace=matrix,
            src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            interpolation=filter_ | _EXACT,
            threads=1,
        )
        return converted.to_ndarray().astype(np.uint8, copy=False)


def source_colours(frame: av.VideoFrame) -> tuple[Colorspace, bool]:
    """Return a frame's YUV matrix and whether it uses the full range; guessed as in players if it does not say."""
    name = frame.format.name
    full = frame.color_range == ColorRange.JPEG or frame.format.is_rgb or name.startswith(("yuvj", "pal", "mono"))
    guess = Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601
    return _MATRICES.get(frame.colorspace, guess), full


def has_alpha(pixel_format: av.VideoFormat) -> bool:
    """Whether a pixel format has transparency."""
    return any(component.is_alpha for component in pixel_format.components) or pixel_format.name == "pal8"


def upright_size(height: int, width: int, aspect: float, turns: int) -> tuple[int, int]:
    """Return the (height, width) of a stored picture when shown with square pixels after `turns` quarter turns."""
    width = max(1, round(width * aspect))
    return (width, height) if turns % 2 else (height, width)


def composite(rgba: Pixels, background: str) -> Pixels:
    """Composite a picture [H, W, 4] with straight alpha over a plain colour "#rrggbb": [H, W, 3]."""
    alpha = rgba[..., 3:].astype(np.uint32)
    colour = np.array(rgb_of(background), dtype=np.uint32)
    return ((rgba[..., :3] * alpha + colour * (255 - alpha) + 127) // 255).astype(np.uint8)


def rgb_of(colour: str) -> tuple[int, int, int]:
    """Return the three bytes of "#rrggbb"."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue
