"""Pictures for the terminal: all frames of a video at a small size, one frame at its full size."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hv15.errors import UserError

if TYPE_CHECKING:
    from av import VideoFrame
    from PIL import Image

Pixels = NDArray[np.uint8]
"""Red, green and blue: [H, W, 3], or of several frames [N, H, W, 3]."""

STILL = 12
"""The frame that stands for a video: half a second after its beginning."""
MOST_FRAMES = 1000
MOST_BYTES = 64 << 20
"""The most memory of a clip; of a longer one only every second frame is kept, or every fourth, ..."""


@dataclass(frozen=True)
class DecodedClip:
    """A video at a small size."""

    frames: Pixels
    """uint8 [N, H, W, 3]."""
    fps: float
    """Frames per second at which these frames are shown."""
    source_size: tuple[int, int]
    """Width and height of the file in pixels."""
    count: int
    """Frames in the file."""


def fitted(width: int, height: int, most_width: int, most_height: int) -> tuple[int, int]:
    """Return the largest (width, height) of the same shape that fits; at least one pixel each way."""
    scale = min(most_width / max(1, width), most_height / max(1, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def load_clip(path: Path, width: int, height: int, cancel: threading.Event | None = None) -> DecodedClip:
    """Decode a video, an image or a folder of images into at most `width` x `height` pixels.

    Once `cancel` is set, what has been decoded so far is returned.

    Raises:
        UserError: it is missing, damaged, or shows nothing.
    """
    from hv15.data.media import IMAGE_SUFFIXES

    width, height = max(1, width), max(1, height)
    if path.is_dir():
        return _folder(path, width, height, cancel)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        picture = _image(path)
        small = _small(picture, width, height)
        return DecodedClip(small[None], 1.0, picture.size, 1)
    return _video(path, width, height, cancel)


def still(path: Path, index: int) -> Image.Image:
    """Return one frame at full size, upright; the last one if there are fewer.

    Raises:
        UserError: it is missing or damaged.
    """
    from hv15.data.media import IMAGE_SUFFIXES

    if path.is_dir():
        files = _listed(path)
        return _image(files[min(index, len(files) - 1)])
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return _image(path)
    from PIL import Image

    shown = None
    for number, frame in enumerate(_decoded(path)):
        shown = frame
        if number == index:
            break
    if shown is None:
        raise UserError.at(path, "shows nothing", hint="it may be incomplete: wait, or make it again")
    picture = Image.fromarray(shown.to_ndarray(format="rgb24"))
    return picture.rotate(shown.rotation, expand=True) if shown.rotation else picture


def small_still(path: Path, width: int, height: int) -> Pixels:
    """Return one frame from near the beginning, uint8 [H, W, 3], in at most `width` x `height` pixels.

    Raises:
        UserError: it is missing or damaged.
    """
    return _small(still(path, STILL), max(1, width), max(1, height))


def _video(path: Path, width: int, height: int, cancel: threading.Event | None) -> DecodedClip:
    frames: list[Pixels] = []
    every, count, size = 1, 0, (0, 0)
    turned = small = None
    try:
        for frame in _decoded(path):
            if cancel is not None and cancel.is_set():
                break
            if small is None:
                turned = round((frame.rotation or 0) / 90) % 4
                size = (frame.height, frame.width) if turned % 2 else (frame.width, frame.height)
                fitting = fitted(*size, width, height)
                small = fitting[::-1] if turned % 2 else fitting
            if count % every == 0:
                scaled = frame.reformat(width=small[0], height=small[1], format="rgb24", interpolation="AREA")
                pixels = np.asarray(scaled.to_ndarray(), np.uint8)
                frames.append(np.ascontiguousarray(np.rot90(pixels, turned)) if turned else pixels)
                if len(frames) > MOST_FRAMES or len(frames) * pixels.nbytes > MOST_BYTES:
                    frames, every = frames[::2], every * 2
            count += 1
    except UserError:
        if not frames:
            raise
    if not frames:
        if cancel is not None and cancel.is_set():
            return DecodedClip(np.zeros((1, 1, 1, 3), np.uint8), 24.0, (1, 1), 0)
        raise UserError.at(path, "shows nothing", hint="it may be incomplete: wait, or make it again")
    return DecodedClip(np.stack(frames), max(0.1, _rate(path) / every), size, count)


def _decoded(path: Path) -> Iterator[VideoFrame]:
    """Yield the frames of a video.

    Raises:
        UserError: it is missing or damaged.
    """
    import av

    from hv15.data.video import damaged, decoded, open_video

    with open_video(path) as (container, stream):
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = 1  # the training needs the other cores
        try:
            yield from decoded(container, stream)
        except (av.FFmpegError, ValueError) as error:
            raise damaged(path, error) from error


def _rate(path: Path) -> float:
    from hv15.data.video import open_video

    with open_video(path) as (_, stream):
        rate = stream.average_rate or stream.guessed_rate or 24
        return min(240.0, float(rate)) or 24.0


def _folder(path: Path, width: int, height: int, cancel: threading.Event | None) -> DecodedClip:
    files = _listed(path)
    every = -(-len(files) // MOST_FRAMES)
    frames: list[Pixels] = []
    size: tuple[int, int] = (1, 1)
    for file in files[::every]:
        if cancel is not None and cancel.is_set() and frames:
            break
        picture = _image(file)
        if not frames:
            size = picture.size
        small = _small(picture, width, height)
        if not frames or small.shape == frames[0].shape:
            frames.append(small)
    return DecodedClip(np.stack(frames), 24.0 / every, size, len(files))


def _listed(path: Path) -> list[Path]:
    from hv15.data.media import frame_files

    try:
        files = frame_files(path)
    except OSError as error:
        raise UserError.at(path, f"cannot be read: {error.strerror}", hint="check its permissions") from error
    if not files:
        raise UserError.at(path, "no images in this folder", hint="they may still be written")
    return files


def _image(path: Path) -> Image.Image:
    from PIL import Image

    from hv15.data.images import read_image

    return Image.fromarray(read_image(path))


def _small(picture: Image.Image, width: int, height: int) -> Pixels:
    from PIL import Image

    return np.asarray(picture.resize(fitted(*picture.size, width, height), Image.Resampling.BOX))
