"""The text metadata of the files that hv15 writes: LoRAs, latents, videos, images and pages."""

from __future__ import annotations

import os
from pathlib import Path

from hv15.errors import UserError
from hv15.records.json_values import JsonObject
from hv15.records.metadata import MADE_FROM, SAMPLE

KINDS = (".safetensors", ".mp4", ".png", ".html", ".md")
"""Endings of files that carry metadata."""

_LAST_CHUNK = b"\0\0\0\0IEND\xaeB`\x82"
"""What every PNG ends with."""


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a file, even a truncated one if its beginning still has it; empty for a kind that has none.

    Raises:
        UserError: it is missing or damaged.
    """
    if path.suffix == ".safetensors":
        from hv15.models.weights.header import read_header

        return read_header(path).metadata
    if path.suffix == ".mp4":
        from hv15.data.encode import read_video_metadata

        return read_video_metadata(path)
    if path.suffix == ".png":
        return _image_text(path)
    if path.suffix == ".html":
        from hv15.pages.html import read_page_metadata

        return read_page_metadata(path)
    if path.suffix == ".md":
        from hv15.pages.markdown import read_markdown_metadata

        return read_markdown_metadata(path)
    return {}


def product_metadata(product: Path) -> dict[str, str]:
    """The metadata of a product, a file or a folder of images; empty if it is torn, or of a kind that has none.

    Raises:
        UserError, OSError: it is missing or damaged.
    """
    files = _files(product)
    return read_metadata(files[0]) if files and all(map(_is_whole, files)) else {}


def product_made_from(product: Path) -> JsonObject | None:
    """Return what a product says that it was made from; None if it is missing or torn, or does not say so."""
    from hv15.sample.provenance import read_made_from

    try:
        return read_made_from(product_metadata(product))
    except (UserError, OSError):
        return None


def is_anonymous(product: Path) -> bool:
    """Whether a sample, a file or a folder of images, is whole and says nothing about how it was made."""
    files = _files(product)
    if not files or not product.exists():
        return False
    try:
        return all(map(_is_whole, files)) and not read_metadata(files[0]).keys() & {SAMPLE, MADE_FROM}
    except (UserError, OSError):
        return False


def _files(product: Path) -> list[Path]:
    return sorted(product.glob("*.png")) if product.is_dir() else [product]


def _is_whole(path: Path) -> bool:
    """Whether nothing is missing at the end of a file. (`read_header` checks that of a .safetensors file.)"""
    if path.suffix == ".mp4":
        return _is_whole_mp4(path)
    if path.suffix == ".html":
        from hv15.pages.html import is_whole_page

        return is_whole_page(path)
    return path.suffix != ".png" or _is_whole_png(path)


def _is_whole_mp4(path: Path) -> bool:
    """Whether the boxes of an mp4 fill its file: a truncated one still has its metadata, which comes first."""
    size, place = path.stat().st_size, 0
    with path.open("rb") as file:
        while place < size:
            file.seek(place)
            head = file.read(16)
            length = int.from_bytes(head[:4], "big")
            if length == 1:  # a 64-bit length follows the box's name
                length = int.from_bytes(head[8:16], "big")
            if length < 8:
                return False
            place += length
    return place == size


def _is_whole_png(path: Path) -> bool:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.verify()  # checks up to the name of the last chunk
    except (OSError, ValueError, SyntaxError):
        return False
    with path.open("rb") as file:
        file.seek(-len(_LAST_CHUNK), os.SEEK_END)
        return file.read() == _LAST_CHUNK


def _image_text(path: Path) -> dict[str, str]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return {str(key): value for key, value in image.info.items() if isinstance(value, str)}
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError.at(path, f"cannot be read as an image: {error}", hint="copy or make it again") from error
