"""Videos that wait in a file without a name, instead of in memory.

The file has no name from the beginning (or from just after it where the system needs one), so nothing is left of it
when the process ends, however it ends.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class _Place:
    """Where a video begins in the file, and what its frames are: each [B, C, h, w], one after the other."""

    offset: int
    frame: tuple[int, ...]
    dtype: torch.dtype

    @property
    def frame_bytes(self) -> int:
        return prod(self.frame) * self.dtype.itemsize


def by_frames(chunk: Tensor) -> Tensor:
    """Return a chunk [B, C, f, h, w] as it is written: [f, B, C, h, w]."""
    return chunk.movedim(2, 0).contiguous()


class Spool:
    """Videos [B, C, F, h, w], each written as a whole, and read in parts.

    Args:
        folder: on a disk with room for them.

    Raises:
        OSError: the disk is full or the folder cannot be written; also while writing.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
        self._places: list[_Place] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, chunks: Iterable[Tensor]) -> int:
        """Write a video, given in chunks [B, C, f, h, w] on any device; return its number. Not two at once."""
        offset = self._file.seek(0, os.SEEK_END)
        number = len(self._places)
        for chunk in chunks:
            frames = by_frames(chunk).cpu()
            if number == len(self._places):
                self._places.append(_Place(offset, tuple(frames.shape[1:]), frames.dtype))
            self._file.seek(0, os.SEEK_END)  # the chunk may be made of what was read meanwhile
            self._file.write(frames.view(torch.uint8).numpy().data)
            del chunk, frames
        return number

    def read(self, number: int, frames: slice) -> Tensor:
        """Return some frames of a video, [B, C, f, h, w] on the CPU, whose `frames` have a beginning and an end."""
        place = self._places[number]
        count = frames.stop - frames.start
        self._file.seek(place.offset + frames.start * place.frame_bytes)
        data = bytearray(self._file.read(count * place.frame_bytes))
        return torch.frombuffer(data, dtype=place.dtype).view(count, *place.frame).movedim(0, 2)
