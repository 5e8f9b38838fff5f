"""What products record about how they were made: the spec of each, read from its own file and nothing else.

A file is read again only when its size, time or inode has changed. What was read is remembered, but may be lost at any
time.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from hv15.atomic import write_text
from hv15.digest import digest
from hv15.errors import UserError
from hv15.records.json_values import Json, JsonObject, RecordError, parse_object
from hv15.records.metadata import CONVERSION_FORMAT, CONVERTED_TO, MADE_FROM

VERSION = 1

log = logging.getLogger(__name__)


class MadeFromReader:
    """Reads what products record, and remembers it.

    Args:
        memory: the file that keeps what was read between plans; `save` writes it.
    """

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        self._changed = False
        self._known: dict[str, Json] = {}
        try:
            content = parse_object(memory.read_bytes())
            products = content.get("products")
            if content.get("version") == VERSION and isinstance(products, dict):
                self._known = products
        except (OSError, RecordError):
            pass  # it only saves time

    def made_from(self, product: Path) -> JsonObject | None:
        """Return what a .safetensors, .mp4 or .png file, or a folder of images was made from.

        None when it is missing or torn, or holds no such record.
        """
        stamp = _stamp(product)
        if stamp is None:
            return None
        key = str(product)
        known = self._known.get(key)
        if isinstance(known, list) and len(known) == 2 and known[0] == stamp:
            recorded = known[1]
        else:
            recorded = _read(product)
            self._known[key] = [stamp, recorded]
            self._changed = True
        return recorded if isinstance(recorded, dict) else None

    def save(self) -> None:
        """Save what was read. If that fails, it is read again the next time."""
        if not self._changed:
            return
        try:
            write_text(self._memory, json.dumps({"version": VERSION, "products": self._known}) + "\n")
        except UserError as error:
            log.debug("%s", error)
        self._changed = False


def _stamp(product: Path) -> Json:
    """(size, mtime_ns, inode) of a file, or those of the images in a folder; None if it is missing."""
    try:
        if product.is_dir():
            return [list(_numbers(file)) for file in sorted(product.glob("*.png"))]
        return list(_numbers(product))
    except OSError:
        return None


def _numbers(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


def _read(product: Path) -> JsonObject | None:
    try:
        metadata = read_metadata(product)
        recorded = parse_object(metadata[MADE_FROM])
        if CONVERTED_TO in metadata:
            number = metadata.get(CONVERSION_FORMAT, "")
            return conversion_spec(digest(recorded), metadata[CONVERTED_TO], int(number) if number.isdecimal() else 0)
    except Exception as error:  # whatever a damaged file does to one of the readers must not stop a plan
        log.debug("%s: %s", product, error)
        return None
    return recorded


def conversion_spec(trained: str, layout: str, number: int) -> JsonObject:
    """What a converted LoRA is made from: digest of the training's spec, layout, format number of the conversion."""
    return {"format": number, "trained": trained, "layout": layout}


def read_metadata(product: Path) -> Mapping[str, str]:
    """The metadata of a product; empty if it is torn, or of a kind that has none.

    Raises:
        UserError, OSError: it cannot be read.
    """
    if product.is_dir():
        texts = [_image_text(file) for file in sorted(product.glob("*.png"))]
        return texts[0] if texts else {}
    if product.suffix == ".safetensors":
        from hv15.models.weights.header import read_header

        return read_header(product).metadata
    if product.suffix == ".mp4":
        from hv15.data.encode import read_video_metadata

        return read_video_metadata(product) if _is_whole_mp4(product) else {}
    if product.suffix == ".png":
        return _image_text(product)
    return {}


_LAST_CHUNK = b"\0\0\0\0IEND\xaeB`\x82"
"""What every PNG ends with."""


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


def _image_text(path: Path) -> dict[str, str]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.verify()  # checks up to the name of the last chunk
            with path.open("rb") as file:
                file.seek(-len(_LAST_CHUNK), os.SEEK_END)
                if file.read() != _LAST_CHUNK:
                    return {}
            return {str(key): value for key, value in image.info.items() if isinstance(value, str)}
    except (ValueError, SyntaxError) as error:
        raise OSError(str(error)) from error
