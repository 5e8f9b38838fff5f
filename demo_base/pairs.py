"""What the demo's super resolution learns from: the latents of clips of the world, each drawn at two sizes.

Three in four are scenes as captions describe them. The others move and look in ways for which captions have no words,
and are shown without a caption: what a LoRA teaches the base has to come through enlarging unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from demo_base.basis import CellBasis, to_pixels
from hv15.data.pixels import Pixels
from hv15.demo import world
from hv15.models.latents import scale
from hv15.sample.resolutions import enlarged_size

LARGE = enlarged_size(world.SIZE, world.SIZE, "720p")[0]
"""Side of the large clips in pixels: 96, half as much again, as with the published models."""
GROWTH = LARGE / world.SIZE
WITHOUT_WORDS = 4
"""One in so many clips has no caption."""
_AT_ONCE = 32


@dataclass(frozen=True)
class Pairs:
    """Clips at both sizes, in the transformer's scale."""

    captions: list[str]
    small: Tensor
    """[N, 32, 3, 4, 4]."""
    large: Tensor
    """[N, 32, 3, 6, 6]."""
    images: list[Pixels]
    """The first frames of the large clips, uint8 [96, 96, 3]."""

    def __len__(self) -> int:
        return len(self.captions)


def draw_pairs(count: int, basis: CellBasis, seed: int, improved: Callable[[Tensor], Tensor] | None = None) -> Pairs:
    """Draw so many pairs; none shows a held-out combination or the concept's word.

    Args:
        improved: is applied to the scaled latents of the large clips, [B, 32, 3, 6, 6].
    """
    captions, images = list[str](), list[Pixels]()
    small, large = list[Tensor](), list[Tensor]()
    for start in range(0, count, _AT_ONCE):
        looks = [drawn(number, seed) for number in range(start, min(start + _AT_ONCE, count))]
        captions += [caption for caption, _, _ in looks]
        for found, growth, size in ((small, 1.0, world.SIZE), (large, GROWTH, LARGE)):
            clips = [world.draw(shape, look.enlarged(growth), size=size) for _, shape, look in looks]
            found.append(scale(basis.encode(to_pixels(np.stack(clips)))))
        images += [clip[0] for clip in clips]
    targets = torch.cat([improved(part) for part in large] if improved else large)
    return Pairs(captions, torch.cat(small), targets, images)


def drawn(number: int, seed: int) -> tuple[str, str, world.Appearance]:
    """Return the caption, the shape and the appearance of the clip with this number."""
    look = 1_000_000 * (seed + 1) + number  # `training_clips` has the seeds from 0 on
    if number % WITHOUT_WORDS == 0:
        return "", *world.varied_look(look, 0.75)
    described = _described()
    scene = described[(number - number // WITHOUT_WORDS) % len(described)]
    return scene.caption, scene.shape, world.appearance(scene, look)


@cache
def _described() -> list[world.Scene]:
    """The scenes that captions describe, without those that are held out."""
    return [scene for scene in world.scenes() if not scene.held_out]
