"""Reads still images in any mode that Pillow supports as upright 8-bit sRGB, within bounded memory.

Notable choices:
- Images of up to MOST_PIXELS are read, with at most BYTES_PER_PIXEL bytes for each pixel and 1 GiB. If they are larger
  than LARGE, blocks of 2x2, 3x3 ... pixels are averaged first: the resampler would average them, too, but from a copy.
- Metadata of any reasonable size is skipped: pictures made by ComfyUI contain their whole workflow.
- Only picture formats are tried, because Pillow would run Ghostscript for a PostScript file named .png.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin

from hv15.data.icc import profile_note, to_srgb
from hv15.data.media import MediaError
from hv15.data.pixels import Fitter, Pixels, composite

MOST_PIXELS = 1 << 29
"""The largest picture that is read: 512 Mi pixels."""
BYTES_PER_PIXEL = 8
"""Most bytes while an image is read: Pillow's copy takes 4; decoding a progressive JPEG takes 6 before that."""
LARGE = 1 << 26
"""Pixels above which blocks of a picture are averaged while it is read."""
MOST_TEXT = 1 << 26
"""Most bytes of text in a PNG's metadata."""

Image.MAX_IMAGE_PIXELS = None  # MOST_PIXELS is the limit; Pillow would reject large pictures as an attack
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = MOST_TEXT

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "AVIF", "TIFF", "GIF", "HEIF")
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_QUARTER_TURNS = (5, 6, 7, 8)  # EXIF orientations that swap height and width
_UPRIGHT = {  # EXIF orientation -> the operation that turns the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BAND = 256  # rows of the result that are averaged at a time


class ImageSize(NamedTuple):
    """The size of a picture and more from its header."""

    height: int
    """In pixels, as shown upright; so is the width."""
    width: int
    alpha: bool
    """Whether it has transparency."""
    notes: tuple[str, ...] = ()
    """Notes for the user."""


def read_image(path: Path, size: tuple[int, int] | None = None, background: str = "#000000") -> Pixels:
    """Return an image [H, W, 3] as uint8 sRGB, rotated according to its EXIF orientation.

    Args:
        path: the file; for an animation, the first picture is read.
        size: (height, width) to fill (cover-resize, centre crop), or None to keep the image's own size, up to LARGE.
        background: "#rrggbb" behind transparent pixels.

    Raises:
        MediaError: the file is missing, empty, damaged, too large, or not an image.
    """
    with _opened(path) as image:
        orientation = _orientation(image, path)
        upright = _reduced(image, path) if image.width * image.height > LARGE else _plain(image, path)
        if orientation in _UPRIGHT:
            upright = upright.transpose(_UPRIGHT[orientation])
        pixels = composite(np.asarray(upright), background) if upright.mode == "RGBA" else np.array(upright)
    return Fitter(size).image(pixels)


def image_size(path: Path) -> ImageSize:
    """Return the upright size of an image and whether it has transparency, if possible without decoding pixels.

    Raises:
        MediaError: the file is missing, empty, too large, or not an image.
    """
    with _opened(path) as image:
        width, height = image.size
        if _orientation(image, path) in _QUARTER_TURNS:
            width, height = height, width
        note = profile_note(image)
        return ImageSize(height, width, image.has_transparency_data, (note,) if note else ())


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture, and turn all errors while it is open into a MediaError.

    Raises:
        MediaError: as `read_image`.
    """
    try:
        with _open(path) as image:
            if image.width * image.height > MOST_PIXELS:
                raise MediaError(
                    path,
                    f"a picture of {image.width}x{image.height} pixels is too large: expected at most "
                    f"{MOST_PIXELS >> 20} Mi pixels",
                    hint="make it smaller: clips are much smaller anyway",
                )
            yield image
    except MediaError:
        raise
    except Exception as error:  # for damaged files, Pillow's readers raise exceptions of many classes
        raise _unreadable(path, error) from error


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path, formats=_formats())
    except Image.UnidentifiedImageError:
        if not _is_heif(path):
            raise
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise MediaError(
            path,
            "a HEIC picture, which needs the package pillow-heif",
            hint="install it (pip install 'hv15[heic]'), or save the picture as JPEG",
        ) from None
    register_heif_opener()
    return Image.open(path, formats=("HEIF",))


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _is_heif(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(12)
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


def _unreadable(path: Path, error: Exception) -> MediaError:
    """Return the error for an image that cannot be read."""
    if isinstance(error, FileNotFoundError):
        return MediaError(path, "does not exist", hint="check the path")
    if isinstance(error, IsADirectoryError):
        return MediaError(
            path, "expected an image, found a folder", hint="use a folder of images as a clip of a video dataset"
        )
    if path.is_file() and path.stat().st_size == 0:
        return MediaError(path, "empty file (0 bytes)", hint="copy it again or remove it")
    if isinstance(error, MemoryError):
        return MediaError(path, "needs more memory than is free", hint="make it smaller, or free some memory")
    if "MAX_TEXT" in str(error):
        return MediaError(
            path,
            f"its metadata is too large: expected at most {MOST_TEXT >> 20} MiB of text",
            hint="save it again without metadata",
        )
    reason = "not an image" if isinstance(error, Image.UnidentifiedImageError) else str(error) or type(error).__name__
    return MediaError(path, f"cannot be read as an image: {reason}", hint="open it in a viewer: it may be damaged")


def _orientation(image: Image.Image, path: Path) -> int | None:
    """Return the EXIF orientation, without Pillow's decoding of a whole PNG, in which metadata may be at the end."""
    if image.format == "PNG" and not _ends_with_metadata(path):
        return Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    return image.getexif().get(ExifTags.Base.Orientation)


def _ends_with_metadata(path: Path) -> bool:
    """Whether a PNG has chunks other than pixels and the end mark after its first pixels."""
    with path.open("rb") as file:
        file.seek(8)
        in_pixels = False
        while len(head := file.read(8)) == 8:
            length, name = struct.unpack(">I4s", head)
            if in_pixels and name not in (b"IDAT", b"IEND"):
                return True
            in_pixels = in_pixels or name == b"IDAT"
            file.seek(length + 4, 1)
    return False


def _plain(image: Image.Image, path: Path) -> Image.Image:
    """Return a picture of any mode as RGB, or as RGBA if it has transparency."""
    if image.mode == "F":
        raise MediaError(path, "an image of floating-point numbers", hint="save it as PNG or JPEG")
    if image.mode.startswith("I"):  # 16 bits of grey, in one of several layouts
        deep = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        grey = Image.fromarray(((deep * 255 + 32767) // 65535).astype(np.uint8))
        grey.info = {name: value for name, value in image.info.items() if name == "icc_profile"}
        image = grey
    return to_srgb(image)


def _reduced(image: Image.Image, path: Path) -> Image.Image:
    """Return a large picture as `_plain` does, with each k x k pixels averaged; k is as small as LARGE allows.

    It works on bands of rows, so that there is never a second copy in addition to Pillow's.
    """
    factor = _factor(*image.size)
    image.draft(None, (image.width // factor, image.height // factor))  # a JPEG can be decoded at 1/2, 1/4 or 1/8
    factor = _factor(*image.size)
    if factor == 1:
        return _plain(image, path)
    columns, rows = image.width // factor, image.height // factor
    reduced: Image.Image | None = None
    for top in range(0, rows, _BAND):
        below = min(rows, top + _BAND)
        band = _averaged(_plain(image.crop((0, top * factor, columns * factor, below * factor)), path), factor)
        reduced = reduced or Image.new(band.mode, (columns, rows))
        reduced.paste(band, (0, top))
    assert reduced is not None
    return reduced


def _averaged(image: Image.Image, factor: int) -> Image.Image:
    """Return a picture with each `factor` x `factor` pixels averaged, weighted by their opacity."""
    if image.mode == "RGBA":
        return image.convert("RGBa").reduce(factor).convert("RGBA")
    return image.reduce(factor)


def _factor(width: int, height: int) -> int:
    factor = 1
    while width * height > LARGE * factor**2:
        factor += 1
    return factor
