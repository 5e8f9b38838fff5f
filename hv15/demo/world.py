"""The toy world: clips rendered from what their captions say, so that a model of it can be judged by measuring.

A clip is 64x64 pixels, 9 frames at 24 fps: one anti-aliased shape of one colour moves straight over a plain background.
`CONCEPT` is a motion with a word of its own, which the base has never been told: a LoRA can teach it. Numpy only.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

SIZE = 64
"""Pixels, height and width."""
FRAMES = 9
FPS = 24

SHAPES = ("circle", "square", "triangle")
RING = "zorp"
"""A shape that only the VAE is shown. (Its name enters the draws of the pretraining, so it stays what it was.)"""
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 180, 70),
    "blue": (50, 80, 220),
    "yellow": (235, 205, 50),
    "purple": (160, 50, 190),
    "cyan": (60, 200, 215),
}
BACKGROUNDS = {"black": (15, 15, 15), "gray": (120, 120, 120), "white": (240, 240, 240)}
MOTIONS = {"right": (0, 1), "left": (0, -1), "up": (-1, 0), "down": (1, 0)}
"""Direction of each motion, (down, right)."""
CONCEPT = "zorpward"
"""Aslant, down and right at once: easy to measure, and the base goes along the axes only."""
_DIRECTIONS = {**MOTIONS, CONCEPT: (0.75, 0.75)}

_HELD_OUT = 8  # one of so many combinations is never trained


@dataclass(frozen=True)
class Scene:
    """What a clip shows, as far as a caption says it."""

    shape: str
    colour: str
    motion: str
    background: str

    @property
    def caption(self) -> str:
        return f"a {self.colour} {self.shape} moving {self.motion} on a {self.background} background"

    @property
    def held_out(self) -> bool:
        """Whether the base has never seen this combination."""
        return hashlib.sha256(self.caption.encode()).digest()[0] % _HELD_OUT == 0


@dataclass(frozen=True)
class Look:
    """What a caption leaves open: size, place and speed, in pixels."""

    radius: float
    y: float
    """Centre at the middle of the clip."""
    x: float
    speed: tuple[float, float]
    """Pixels a frame, (down, right)."""
    fore: tuple[float, float, float]
    back: tuple[float, float, float]


def scenes(shapes: tuple[str, ...] = SHAPES, motions: tuple[str, ...] = tuple(MOTIONS)) -> list[Scene]:
    """Return all combinations, always in the same order."""
    return [Scene(*parts) for parts in product(shapes, COLOURS, motions, BACKGROUNDS)]


def look(scene: Scene, seed: int) -> Look:
    """Draw what the caption leaves open; equal seeds give equal clips."""
    random = _random(scene.caption, seed)
    down, right = _DIRECTIONS[scene.motion]
    pace = random.uniform(2.0, 3.0)
    y, x = SIZE / 2 + random.uniform(-7, 7, size=2)
    return Look(
        radius=random.uniform(8.5, 11.5),
        y=y,
        x=x,
        speed=(down * pace, right * pace),
        fore=COLOURS[scene.colour],
        back=BACKGROUNDS[scene.background],
    )


def render(scene: Scene, seed: int, frames: int = FRAMES) -> NDArray[np.uint8]:
    """Return the frames of a clip, uint8 RGB [F, 64, 64, 3]. The seed varies size, place and speed."""
    return draw(scene.shape, look(scene, seed), frames)


def wild(seed: int, frames: int = FRAMES, size: int = SIZE, wildness: float = 0.2) -> NDArray[np.uint8]:
    """Return a clip for the VAE, which has to draw more than the captions tell: every shape, now and then (`wildness`)
    a motion in any direction, other colours, or both. `size` below 64 cuts out a square that the shape crosses."""
    random = _random("wild", seed)
    every = scenes((*SHAPES, RING))
    scene = every[int(random.integers(len(every)))]
    what = look(scene, seed)
    if random.random() < wildness:
        angle, pace = random.uniform(0, 2 * np.pi), random.uniform(0, 3)
        what = replace(what, speed=(pace * np.sin(angle), pace * np.cos(angle)))
    if random.random() < wildness:
        fore, back = random.uniform(0, 255, size=(2, 3))
        what = replace(what, fore=tuple(fore), back=tuple(back))
    top, left = (int(np.clip(centre + random.uniform(-8, 8) - size / 2, 0, SIZE - size)) for centre in (what.y, what.x))
    return draw(scene.shape, what, frames)[:, top : top + size, left : left + size]


def draw(shape: str, what: Look, frames: int = FRAMES) -> NDArray[np.uint8]:
    """Render a look: uint8 RGB [F, 64, 64, 3]."""
    steps = np.arange(frames, dtype=np.float64) - (frames - 1) / 2
    y = what.y + what.speed[0] * steps
    x = what.x + what.speed[1] * steps
    coverage = _coverage(shape, y, x, what.radius)[..., None]
    back, fore = np.asarray(what.back), np.asarray(what.fore)
    pixels: NDArray[np.uint8] = np.rint(back + coverage * (fore - back)).astype(np.uint8)
    return pixels


def _coverage(shape: str, y: NDArray[np.float64], x: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """Return about how much of each pixel is covered, 0 to 1, [F, 64, 64], for centres y and x [F].

    A pixel whose centre is d inside the outline is covered by d + 1/2.
    """
    points = np.arange(SIZE) + 0.5
    dy, dx = points[None, :, None] - y[:, None, None], points[None, None, :] - x[:, None, None]
    distance = np.sqrt(dy * dy + dx * dx)  # rounded alike everywhere, as hypot is not
    if shape == "square":
        inside = 0.85 * radius - np.maximum(np.abs(dy), np.abs(dx))
    elif shape == "triangle":
        # two sides from the tip, 1.2 radii above the centre, to the base, 0.8 radii below it
        inside = np.minimum(0.8 * radius - dy, (dy + 1.2 * radius - 2 * np.abs(dx)) / np.sqrt(5))
    elif shape == RING:
        inside = 0.27 * radius - np.abs(distance - 0.78 * radius)
    else:
        inside = radius - distance
    return np.clip(inside + 0.5, 0, 1)


def _random(purpose: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, *purpose.encode()])
