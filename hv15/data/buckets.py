"""Sizes to which clips are resized: the bucket of nearest aspect, resize to cover it, crop the centre.

The buckets are those of musubi-tuner: for an area W*H, every width from half the area's square root up to the root in
steps of 16 with the largest height that does not exceed the area, and the same with width and height swapped.
"""

from __future__ import annotations

import math
from functools import lru_cache

from hv15.errors import UserError
from hv15.grid import PIXELS_PER_CELL, encodable_side

MOST_ASPECT = 100
"""The largest ratio of a picture's sides; of a longer picture, hardly anything would be left after cropping."""


@lru_cache(maxsize=64)
def bucket_sizes(width: int, height: int) -> tuple[tuple[int, int], ...]:
    """Return all buckets (width, height) of the area `width * height`, sorted."""
    area = width * height
    root = math.isqrt(area)
    sizes = set()
    for short in range(max(PIXELS_PER_CELL, encodable_side(root // 2)), root + PIXELS_PER_CELL, PIXELS_PER_CELL):
        long = encodable_side(area // short)
        if long:
            sizes |= {(short, long), (long, short)}
    return tuple(sorted(sizes))


def choose_bucket(
    height: int, width: int, resolution: tuple[int, int], *, enable_bucket: bool = True, no_upscale: bool = False
) -> tuple[int, int]:
    """Return the (height, width) to which a picture of `height` x `width` pixels is resized and cropped.

    Args:
        resolution: (width, height). With buckets, only its area matters.
        enable_bucket: False means `resolution` itself for every picture.
        no_upscale: a picture that is not larger than the area keeps its size, rounded down to multiples of 16.

    Raises:
        UserError: `resolution` cannot be used, or the picture is too small or too narrow, see `check_shape`.
    """
    wide, high = resolution
    check_shape(height, width)
    if not enable_bucket:
        if wide % PIXELS_PER_CELL or high % PIXELS_PER_CELL or wide < PIXELS_PER_CELL or high < PIXELS_PER_CELL:
            usable = [max(PIXELS_PER_CELL, encodable_side(side)) for side in resolution]
            raise UserError(
                f"resolution [{wide}, {high}]: with enable_bucket: false, expected multiples of {PIXELS_PER_CELL}",
                hint=f"use {usable}, or enable_bucket: true",
            )
        return high, wide
    if no_upscale and height * width <= wide * high:
        return encodable_side(height), encodable_side(width)
    sizes = bucket_sizes(wide, high)
    if not sizes:
        raise UserError(
            f"resolution [{wide}, {high}] is too small for a bucket",
            hint=f"use at least {[PIXELS_PER_CELL] * 2}",
        )
    aspect = width / height
    bucket_width, bucket_height = min(sizes, key=lambda size: abs(size[0] / size[1] - aspect))  # the first on a tie
    return bucket_height, bucket_width


def check_shape(height: int, width: int) -> None:
    """Check that a picture can be resized to a bucket.

    Raises:
        UserError: a side has less than 16 pixels, or the picture is extremely long and narrow (`MOST_ASPECT`).
    """
    if min(height, width) < PIXELS_PER_CELL:
        raise UserError(
            f"a picture of {width}x{height} pixels is too small: expected at least {PIXELS_PER_CELL}x{PIXELS_PER_CELL}",
            hint="remove it, or make it again from a larger original",
        )
    if max(height, width) > MOST_ASPECT * min(height, width):
        raise UserError(
            f"a picture of {width}x{height} pixels is too narrow: expected sides that differ by at most a factor of "
            f"{MOST_ASPECT}",
            hint="remove it, or crop it to the part that should be learnt",
        )


def cover_size(height: int, width: int, target_height: int, target_width: int) -> tuple[int, int]:
    """Return the smallest (height, width) of the same aspect that covers the target, rounded to the nearest pixel."""
    if target_width * height >= target_height * width:
        return max(target_height, (2 * height * target_width + width) // (2 * width)), target_width
    return target_height, max(target_width, (2 * width * target_height + height) // (2 * height))
