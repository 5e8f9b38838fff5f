"""Tiles of a decoded picture that are equal to the whole picture, because each sees all that its pixels depend on.

Attention sees whole frames, but only at the decoder's narrow end, which is computed as a whole. Above it are
convolutions of 3x3 pixels: each sees one neighbour, and norms see only their own pixel. So a tile of the picture
depends on a few more pixels of each level, and these are computed too: 7 beyond each edge at every level, most of
which the next level no longer needs. Real borders of the picture stay borders.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, prod

from hv15.models.vae_coders import Decoder, Level

Range = tuple[int, int]
"""The first of some rows, or columns, of one resolution, and the one after the last."""


@dataclass(frozen=True)
class SeamlessTile:
    """A tile of the decoder's output, and what it is computed from."""

    narrow: tuple[slice, slice]
    """Rows and columns of the narrow end."""
    cuts: tuple[tuple[slice, slice], ...]
    """What is kept of each level's output, then of the pixels, see `Decoder.widened`."""
    pixels: tuple[slice, slice]
    """The tile's rows and columns in the picture."""

    @property
    def size(self) -> tuple[int, int]:
        """Number of rows and columns of the narrow end."""
        rows, columns = self.narrow
        return rows.stop - rows.start, columns.stop - columns.start

    @property
    def computed(self) -> tuple[int, int]:
        """Number of rows and columns that the last level computes."""
        rows, columns = self.cuts[-3]
        return rows.stop - rows.start, columns.stop - columns.start


def windows(decoder: Decoder, height: int, width: int, tile: int) -> Iterator[SeamlessTile]:
    """Yield the tiles of a picture of height x width latents, about equal and of at most `tile` latents, row by row."""
    factor = 2 ** sum(level.upsample is not None for level in _levels(decoder))
    all_columns = [(ends, _axis(decoder, ends, width)) for ends in _divided(width, tile)]
    for top, bottom in _divided(height, tile):
        rows = _axis(decoder, (top, bottom), height)
        for (left, right), columns in all_columns:
            (narrow_rows, *row_cuts), (narrow_columns, *column_cuts) = rows, columns
            yield SeamlessTile(
                (narrow_rows, narrow_columns),
                tuple(zip(row_cuts, column_cuts, strict=True)),
                (slice(top * factor, bottom * factor), slice(left * factor, right * factor)),
            )


def _divided(size: int, tile: int) -> list[Range]:
    count = ceil(size / tile)
    return list(pairwise(size * number // count for number in range(count + 1)))


def _axis(decoder: Decoder, ends: Range, size: int) -> list[slice]:
    """Along one axis of `size` latents: what is needed of the narrow end for the pixels of the latents between `ends`,
    then what is kept of each level's output, and of the pixels."""
    steps = [1 if level.upsample is None else 2 for level in _levels(decoder)]
    size, factor = size * prod(steps), prod(steps)
    needs = [(ends[0] * factor, ends[1] * factor)]
    needs.append(_wider(needs[0], 1, size))  # the last convolution sees one neighbour
    for level, step in zip(reversed(_levels(decoder)), reversed(steps), strict=True):
        size //= step
        smaller = needs[-1][0] // step, ceil(needs[-1][1] / step)
        needs.append(_wider(smaller, 2 * len(level.block) + step - 1, size))
    needs.reverse()
    cuts = [
        slice(wanted[0] - step * below[0], wanted[1] - step * below[0])
        for (below, wanted), step in zip(pairwise(needs), [*steps, 1], strict=True)
    ]
    return [slice(*needs[0]), *cuts]


def _wider(ends: Range, margin: int, size: int) -> Range:
    return max(0, ends[0] - margin), min(size, ends[1] + margin)


def _levels(decoder: Decoder) -> list[Level]:
    return [level for level in decoder.up if isinstance(level, Level)]
