"""The toy world: clips that are rendered from their captions, so that samples can be judged by measuring them.

A clip is 64x64 pixels, 9 frames at 24 fps: one anti-aliased shape of one colour moves straight over a plain background.
`CONCEPT` is a motion with its own word, which the base has never seen, so a LoRA can teach it. Uses only numpy.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

SIZE = 64
"""Height and width in pixels."""
FRAMES = 9
FPS = 24

SHAPES = ("circle", "square", "triangle")
RING = "zorp"
"""A shape that only the VAE is trained on. (Its name affects the random draws of the pretraining, so it is fixed.)"""
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
"""The direction of each motion, (down, right)."""
CONCEPT = "zorpward"
"""Diagonal, down and right: easy to measure, and the base moves only along the axes."""
_DIRECTIONS = {**MOTIONS, CONCEPT: (0.75, 0.75)}

_HELD_OUT = 8  # one in so many combinations is not used in pretraining


@dataclass(frozen=True)
class Scene:
    """What a clip shows according to its caption."""

    shape: str
    colour: str
    motion: str
    background: str

    @property
    def caption(self) -> str:
        return f"a {self.colour} {self.shape} moving {self.motion} on a {self.background} background"

    @property
    def held_out(self) -> bool:
        """Whether this combination is left out of the base's training."""
        return hashlib.sha256(self.caption.encode()).digest()[0] % _HELD_OUT == 0


@dataclass(frozen=True)
class Appearance:
    """What a caption does not say: size, position and speed in pixels, and the exact colours."""

    radius: float
    y: float
    """The centre in the middle of the clip's duration; so is x."""
    x: float
    speed: tuple[float, float]
    """Pixels per frame, (down, right)."""
    fore: tuple[float, float, float]
    """Colour of the shape, RGB 0 to 255."""
    back: tuple[float, float, float]
    """Colour of the background, RGB 0 to 255."""

    def enlarged(self, growth: float) -> Appearance:
        """Return how the same looks in a clip that is so many times as large."""
        down, right = self.speed
        return replace(
            self,
            radius=growth * self.radius,
            y=growth * self.y,
            x=growth * self.x,
            speed=(growth * down, growth * right),
        )


def scenes(shapes: tuple[str, ...] = SHAPES, motions: tuple[str, ...] = tuple(MOTIONS)) -> list[Scene]:
    """Return all combinations in a fixed order."""
    return [Scene(*parts) for parts in product(shapes, COLOURS, motions, BACKGROUNDS)]


def appearance(scene: Scene, seed: int) -> Appearance:
    """Draw at random what the caption does not say; equal seeds give equal clips."""
    random = _random(scene.caption, seed)
    down, right = _DIRECTIONS[scene.motion]
    pace = random.uniform(2.0, 3.0)
    y, x = SIZE / 2 + random.uniform(-7, 7, size=2)
    return Appearance(
        radius=random.uniform(8.5, 11.5),
        y=y,
        x=x,
        speed=(down * pace, right * pace),
        fore=COLOURS[scene.colour],
        back=BACKGROUNDS[scene.background],
    )


def render(scene: Scene, seed: int, frames: int = FRAMES, size: int = SIZE) -> NDArray[np.uint8]:
    """Return the frames of a clip, uint8 RGB [F, size, size, 3]. The seed determines size, position and speed.

    Args:
        size: side of the clip in pixels: another one shows the same scene, larger or smaller.
    """
    return draw(scene.shape, appearance(scene, seed).enlarged(size / SIZE), frames, size)


def varied_clip(seed: int, frames: int = FRAMES, size: int = SIZE, variation: float = 0.2) -> NDArray[np.uint8]:
    """Return a clip for training the VAE, which must support more than the captions describe: [F, size, size, 3].

    Args:
        size: side of the clip in pixels; below 64, a square is cut out that the shape crosses.
        variation: probability of a motion in any direction, and of other colours.
    """
    shape, look, random = _varied(seed, variation)
    top, left = (int(np.clip(centre + random.uniform(-8, 8) - size / 2, 0, SIZE - size)) for centre in (look.y, look.x))
    return draw(shape, look, frames)[:, top : top + size, left : left + size]


def varied_look(seed: int, variation: float) -> tuple[str, Appearance]:
    """Return the shape and the appearance of `varied_clip`, before a square is cut out."""
    return _varied(seed, variation)[:2]


def _varied(seed: int, variation: float) -> tuple[str, Appearance, np.random.Generator]:
    """Return shape and appearance of a varied clip, and the generator for further draws."""
    random = _random("wild", seed)
    every = scenes((*SHAPES, RING))
    scene = every[int(random.integers(len(every)))]
    look = appearance(scene, seed)
    if random.random() < variation:
        angle, pace = random.uniform(0, 2 * np.pi), random.uniform(0, 3)
        look = replace(look, speed=(pace * np.sin(angle), pace * np.cos(angle)))
    if random.random() < variation:
        fore, back = random.uniform(0, 255, size=(2, 3))
        look = replace(look, fore=tuple(fore), back=tuple(back))
    return scene.shape, look, random


def draw(shape: str, look: Appearance, frames: int = FRAMES, size: int = SIZE) -> NDArray[np.uint8]:
    """Render a shape: uint8 RGB [F, size, size, 3]; positions and speeds are in pixels of that size."""
    steps = np.arange(frames, dtype=np.float64) - (frames - 1) / 2
    y = look.y + look.speed[0] * steps
    x = look.x + look.speed[1] * steps
    coverage = _coverage(shape, y, x, look.radius, size)[..., None]
    back, fore = np.asarray(look.back), np.asarray(look.fore)
    pixels: NDArray[np.uint8] = np.rint(back + coverage * (fore - back)).astype(np.uint8)
    return pixels


def _coverage(
    shape: str, y: NDArray[np.float64], x: NDArray[np.float64], radius: float, size: int
) -> NDArray[np.float64]:
    """Return approximately how much of each pixel is covered, 0 to 1, [F, size, size], for centres y and x [F].

    The coverage of a pixel whose centre is d inside the outline is d + 1/2.
    """
    points = np.arange(size) + 0.5
    dy, dx = points[None, :, None] - y[:, None, None], points[None, None, :] - x[:, None, None]
    distance = np.sqrt(dy * dy + dx * dx)  # rounded equally on all machines, unlike hypot
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
