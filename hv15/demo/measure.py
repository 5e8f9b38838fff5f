"""What a clip of the toy world shows, read from its pixels: colour, shape, direction, smoothness, background.

It knows the world's palette and shapes, and nothing of the models: rendered clips, samples and noise are measured
alike. Blurred edges and dull colours are allowed for; what is not clearly there is None. Numpy only.

1. The background is the median of the border, the foreground's colour the median of what differs most from it.
2. How much of each pixel is covered follows from where its colour lies between the two.
3. Each frame's centre of coverage is followed through time, and its outline is compared with each shape drawn at that
   centre and area, sharp and blurred.
"""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hv15.demo.world import BACKGROUNDS, COLOURS, CONCEPT, MOTIONS, RING, SHAPES, SIZE, Look, Scene, draw

Floats = NDArray[np.float64]

_BORDER = 3
_CONTRAST = 60.0  # what is nearer to the background than this is no foreground; the palette keeps 110 apart
_HUE = 22.0  # degrees around a colour's own; the palette keeps 50 apart, whatever guidance does to the saturation
_CHROMA = 60.0  # less between the largest and the smallest of red, green and blue is gray
_GRAY = 60.0  # around a background's colour
_THERE = 0.5  # overlap of a frame's foreground with the shape it resembles most: noise and smears have less
_SHAPE = 0.6  # the same, to name the shape: a torn blob has a place and a path, but no shape
_PACE = 0.8  # pixels a frame; the world moves at 2 to 3
_ASLANT = 22.0  # degrees from a motion's own direction
_DIRECTIONS = {**MOTIONS, CONCEPT: (1, 1)}
_AREAS = {"circle": np.pi, "square": 2.89, "triangle": 2.0, RING: np.pi * (1.05**2 - 0.51**2)}
"""Of each shape with radius 1."""
_LOW = {"triangle": 2 / 15}
"""How far below its centre a shape's centre of area lies, in radii."""


def _blur(pixels: float) -> Floats:
    """The matrix [64, 64] of a Gaussian blur along one axis, for this standard deviation."""
    apart = np.subtract.outer(np.arange(SIZE), np.arange(SIZE)) / pixels
    weights: Floats = np.exp(-0.5 * apart**2)
    blur: Floats = weights / weights.sum(axis=1, keepdims=True)
    return blur


_SOFTER = _blur(1.8)


@dataclass(frozen=True)
class Measured:
    """What a clip shows; None: nothing that the world knows."""

    shape: str | None
    colour: str | None
    motion: str | None
    background: str | None
    jitter: float
    """How far the foreground strays from a straight, even path: root mean square in pixels; infinite without one."""
    overlap: float
    """Of the foreground with the shape that it resembles most, 0 to 1, the mean over the frames."""
    fore: tuple[float, float, float]
    """The foreground's colour as it is, RGB 0 to 255."""
    back: tuple[float, float, float]

    def wrong(self, scene: Scene) -> list[str]:
        """Return which of shape, colour, motion and background differ from a scene, in words."""
        return [
            f"{name} {found}, not {asked}"
            for name in ("shape", "colour", "motion", "background")
            if (found := getattr(self, name)) != (asked := getattr(scene, name))
        ]

    def moves_as(self, scene: Scene) -> bool:
        """Whether colour and direction are those of the scene."""
        return (self.colour, self.motion) == (scene.colour, scene.motion)


def measure(frames: NDArray[np.uint8]) -> Measured:
    """Measure a clip, uint8 RGB [F, 64, 64, 3]."""
    pixels = frames.astype(np.float64)
    border = np.ones((SIZE, SIZE), bool)
    border[_BORDER:-_BORDER, _BORDER:-_BORDER] = False
    back = np.median(pixels[:, border].reshape(-1, 3), axis=0)
    background = _background(back)
    distance = np.linalg.norm(pixels - back, axis=-1)
    peak = float(np.percentile(distance, 97))
    if peak < _CONTRAST:
        return Measured(None, None, None, background, np.inf, 0.0, _rgb(back), _rgb(back))
    fore = np.median(pixels[distance > 0.75 * peak], axis=0)
    line = fore - back
    coverage = np.clip((pixels - back) @ line / (line @ line), 0, 1)  # (F, H, W)
    coverage[coverage < 0.2] = 0  # the ripple of a decoder
    overlaps = {shape: _overlaps(coverage, shape) for shape in (*SHAPES, RING)}
    shape = max(overlaps, key=lambda name: float(overlaps[name].mean()))
    overlap = float(overlaps[shape].mean())
    there = np.max(list(overlaps.values()), axis=0) > _THERE  # (F,)
    if there.mean() < 0.75:
        return Measured(None, None, None, background, np.inf, overlap, _rgb(fore), _rgb(back))
    motion, jitter = _path(coverage[there], np.flatnonzero(there))
    named = shape if overlap > _SHAPE else None
    return Measured(named, _colour(fore), motion, background, jitter, overlap, _rgb(fore), _rgb(back))


def psnr(shown: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> float:
    """Return the peak signal-to-noise ratio of two uint8 images or clips, in dB."""
    error = np.square(shown.astype(np.float64) - wanted.astype(np.float64)).mean()
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def scene_of(caption: str) -> Scene | None:
    """Return the scene that a caption of the world describes; None for any other text."""
    pattern = r"an? (?P<colour>\w+) (?P<shape>\w+) moving (?P<motion>\w+) on a (?P<background>\w+) background"
    match = re.fullmatch(pattern, caption)
    scene = Scene(**match.groupdict()) if match else None
    known = (
        scene is not None
        and scene.shape in (*SHAPES, RING)
        and scene.colour in COLOURS
        and scene.motion in _DIRECTIONS
        and scene.background in BACKGROUNDS
    )
    return scene if known else None


def _colour(found: Floats) -> str | None:
    """Return the palette's colour of this hue."""
    if found.max() - found.min() < _CHROMA:
        return None
    for name, colour in COLOURS.items():
        apart = abs(_hue(found) - _hue(colour)) % 360
        if min(apart, 360 - apart) < _HUE:
            return name
    return None


def _hue(colour: Iterable[float]) -> float:
    """In degrees; red is 0."""
    return 360 * colorsys.rgb_to_hsv(*(value / 255 for value in colour))[0]


def _background(found: Floats) -> str | None:
    distances = {name: float(np.linalg.norm(found - np.array(colour))) for name, colour in BACKGROUNDS.items()}
    name = min(distances, key=distances.__getitem__)
    return name if distances[name] <= _GRAY else None


def _rgb(colour: Floats) -> tuple[float, float, float]:
    red, green, blue = (round(float(value), 2) for value in colour)
    return red, green, blue


def _centres(coverage: Floats) -> Floats:
    """Return the centre of coverage of each frame, [F, 2] (down, right); frames without any get the middle."""
    points = np.arange(SIZE) + 0.5
    area = coverage.sum(axis=(1, 2))
    sums = np.stack([coverage.sum(axis=2) @ points, coverage.sum(axis=1) @ points], axis=1)
    return np.where(area[:, None] > 0, sums / np.maximum(area, 1e-9)[:, None], SIZE / 2)


def _overlaps(coverage: Floats, shape: str) -> Floats:
    """Return for each frame how well its coverage agrees with a shape of its area at its centre, 0 to 1 [F]."""
    found = np.zeros(len(coverage))
    for number, (frame, (y, x)) in enumerate(zip(coverage, _centres(coverage), strict=True)):
        size = np.sqrt(frame.sum() / _AREAS[shape])
        if not 3 <= size <= SIZE / 2:
            continue
        for radius in (0.93 * size, size, 1.07 * size):
            what = Look(radius, y - _LOW.get(shape, 0) * radius, x, (0, 0), (255, 255, 255), (0, 0, 0))
            sharp = draw(shape, what, frames=1)[0, :, :, 0] / 255
            for drawn in (sharp, _SOFTER @ sharp @ _SOFTER.T):
                overlap = np.minimum(frame, drawn).sum() / np.maximum(frame, drawn).sum()
                found[number] = max(found[number], float(overlap))
    return found


def _path(coverage: Floats, times: NDArray[np.int64]) -> tuple[str | None, float]:
    """Return the motion's name, if it is one, and the jitter of the centres at these times."""
    centres = _centres(coverage)
    late = times - times.mean()
    speed = late @ centres / (late @ late)
    strays = centres - centres.mean(axis=0) - late[:, None] * speed
    jitter = float(np.sqrt(np.square(strays).sum(axis=1).mean()))
    pace = float(np.linalg.norm(speed))
    for name, direction in _DIRECTIONS.items():
        ahead = float(speed @ np.array(direction)) / float(np.linalg.norm(direction))
        if pace > _PACE and ahead > np.cos(np.radians(_ASLANT)) * pace:
            return name, jitter
    return None, jitter
