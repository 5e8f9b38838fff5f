"""Still images: any mode Pillow reads becomes upright 8-bit RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from hv15.data.media import MediaError
from hv15.data.pixels import Fitter, Pixels, composite

_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
_QUARTER_TURNS = (5, 6, 7, 8)  # EXIF orientations that swap height and width


def read_image(path: Path, size: tuple[int, int] | None = None, background: str = "#000000") -> Pixels:
    """Return an image [H, W, 3] as uint8 RGB, turned as its EXIF orientation says.

    Args:
        path: the file; of an animation the first picture is taken.
        size: (height, width) to fill (cover-resize, centre crop), or None to keep the image's own size.
        background: "#rrggbb" behind transparent pixels.

    Raises:
        MediaError: the file is missing, empty, damaged, or no image.
    """
    try:
        with Image.open(path) as image:
            pixels = _rgb(ImageOps.exif_transpose(image), background, path)
    except _DAMAGED as error:
        raise unreadable(path, error) from error
    return Fitter(size).image(pixels)


def image_size(path: Path) -> tuple[int, int, bool]:
    """Return (height, width, has transparency) of an image as it is shown; only the header is read.

    Raises:
        MediaError: the file is missing, empty, or no image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(ExifTags.Base.Orientation) in _QUARTER_TURNS
            alpha = image.has_transparency_data
    except _DAMAGED as error:
        raise unreadable(path, error) from error
    return (width, height, alpha) if turned else (height, width, alpha)


def unreadable(path: Path, error: Exception) -> MediaError:
    """Describe why an image cannot be read."""
    if isinstance(error, FileNotFoundError):
        return MediaError(f"{path}: does not exist", hint="check the path")
    if isinstance(error, IsADirectoryError):
        return MediaError(
            f"{path}: expected an image, found a folder", hint="a folder of images is a clip of a video dataset"
        )
    if path.is_file() and path.stat().st_size == 0:
        return MediaError(f"{path}: empty file (0 bytes)", hint="copy it again or remove it")
    reason = "not an image" if isinstance(error, Image.UnidentifiedImageError) else str(error)
    return MediaError(f"{path}: cannot be read as an image: {reason}", hint="open it in a viewer: it may be damaged")


def _rgb(image: Image.Image, background: str, path: Path) -> Pixels:
    if image.mode.startswith("I"):  # 16 bits of grey, in one of several layouts
        deep = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return np.repeat(((deep * 255 + 32767) // 65535).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == "F":
        raise MediaError(f"{path}: an image of floating-point numbers", hint="save it as PNG or JPEG")
    if image.has_transparency_data:
        return composite(np.asarray(image.convert("RGBA")), background)
    return np.array(image.convert("RGB"))
