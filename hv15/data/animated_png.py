"""Writes animated PNGs (APNG), frame by frame: the format is lossless, and plays in a browser and in a README.

Pillow writes them too, but it keeps all frames in memory until the last one is there. Here, Pillow only makes one
ordinary PNG of what has changed in each frame; its chunks of pixels go into the animation at once. The number of
frames, which stands at the beginning of the file, is filled in at the end.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from hv15.atomic import atomic_path
from hv15.data.encode import first_size, text_chunks
from hv15.data.frames import exact_fps
from hv15.data.pixels import Pixels
from hv15.grid import FPS

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_FOREVER = 0
_LARGEST = 2**16 - 1  # of each part of a frame's duration
_STAYS, _REPLACES = 0, 0  # what becomes of a frame's region afterwards, and how it is drawn


def write_animation(
    path: Path, frames: Iterable[Pixels], fps: float = FPS, metadata: Mapping[str, str] | None = None
) -> None:
    """Write an animated PNG, which loops forever, atomically.

    Args:
        path: the file.
        frames: uint8 RGB [H, W, 3], one after the other.
        fps: frames per second.
        metadata: written as text chunks.

    Raises:
        UserError: there are no frames, the disk is full or the file cannot be written.
    """
    seconds = (1 / exact_fps(fps)).limit_denominator(_LARGEST)
    with atomic_path(path) as temporary, temporary.open("w+b") as file:
        frames, _ = first_size(path, frames)
        _Animation(file, seconds, metadata or {}).write(frames)


class _Animation:
    """One file."""

    def __init__(self, file: BinaryIO, seconds: Fraction, metadata: Mapping[str, str]) -> None:
        self._file, self._seconds, self._metadata = file, seconds, metadata
        self._numbered = 0
        """The chunks so far that have a number."""

    def write(self, frames: Iterable[Pixels]) -> None:
        """Write the whole file."""
        self._file.write(_SIGNATURE)
        counted_at, count = 0, 0
        before: Pixels | None = None
        for pixels in frames:
            if before is None:
                counted_at = self._first(pixels)
            else:
                self._following(*_changed(before, pixels))
            before, count = pixels, count + 1
        self._chunk(b"IEND", b"")
        self._file.seek(counted_at)
        self._chunk(b"acTL", struct.pack(">II", count, _FOREVER))

    def _first(self, pixels: Pixels) -> int:
        """Write the frame [H, W, 3] that other programs show alone; return where the number of frames is to stand."""
        counted_at = 0
        for kind, data in _png_chunks(pixels, self._metadata):
            if kind == b"IDAT" and not counted_at:
                counted_at = self._file.tell()
                self._chunk(b"acTL", bytes(8))
                self._control(0, 0, pixels)
            if kind != b"IEND":
                self._chunk(kind, data)
        return counted_at

    def _following(self, top: int, left: int, region: Pixels) -> None:
        """Write what has changed, [h, w, 3]."""
        self._control(top, left, region)
        for kind, data in _png_chunks(region, {}):
            if kind == b"IDAT":
                self._chunk(b"fdAT", self._number() + data)

    def _control(self, top: int, left: int, region: Pixels) -> None:
        height, width = region.shape[:2]
        duration = self._seconds.numerator, self._seconds.denominator
        place = struct.pack(">IIIIHHBB", width, height, left, top, *duration, _STAYS, _REPLACES)
        self._chunk(b"fcTL", self._number() + place)

    def _number(self) -> bytes:
        self._numbered += 1
        return struct.pack(">I", self._numbered - 1)

    def _chunk(self, kind: bytes, data: bytes) -> None:
        self._file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))


def _png_chunks(pixels: Pixels, metadata: Mapping[str, str]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kind and the data of each chunk of an ordinary PNG of pixels [h, w, 3]."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", pnginfo=text_chunks(metadata))
    png, place = file.getvalue(), len(_SIGNATURE)
    while place < len(png):
        (length,) = struct.unpack_from(">I", png, place)
        yield png[place + 4 : place + 8], png[place + 8 : place + 8 + length]
        place += 12 + length


def _changed(before: Pixels, pixels: Pixels) -> tuple[int, int, Pixels]:
    """Return the first row and column, and the pixels [h, w, 3], of all that differs; at least one pixel."""
    differs = (before != pixels).any(axis=2)
    rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
    if not rows.size:
        return 0, 0, pixels[:1, :1]
    top, left = int(rows[0]), int(columns[0])
    return top, left, pixels[top : rows[-1] + 1, left : columns[-1] + 1]
