"""Measures what a clip of the toy world shows, from its pixels: colour, shape, direction, smoothness, background.

It knows the world's palette and shapes but not the models, so rendered clips, samples and noise are measured in the
same way. It tolerates blurred edges and dull colours; a property that is not clearly visible is None. Uses only numpy.

1. The background is the median of the border; the foreground's colour is the median of the pixels that differ most.
2. The position of a pixel's colour between these two tells how much of the pixel is covered.
3. The centre of coverage is tracked over the frames, and the coverage is compared with each shape, drawn sharp and
   blurred, with the same centre and area.
"""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hv15.demo.world import BACKGROUNDS, COLOURS, CONCEPT, MOTIONS, RING, SHAPES, SIZE, Appearance, Scene, draw

Floats = NDArray[np.float64]

_BORDER = 3
_CONTRAST = 60.0  # least distance of the foreground from the background; in the palette it is at least 110
_HUE = 22.0  # degrees around a colour's hue; the palette's are 50 apart, and guidance changes only the saturation
_CHROMA = 60.0  # a smaller difference between the largest and the smallest of red, green and blue is gray
_GRAY = 60.0  # most distance from a background's colour
_RIPPLE = 0.2  # least coverage that counts
_PRESENT = 0.5  # least overlap of a frame's foreground with the most similar shape; noise and smears have less
_SHAPE = 0.6  # least overlap to name the shape; a torn blob has a position and a path, but no shape
_PACE = 0.8  # least pixels per frame; in the world it is 2 to 3
_ASLANT = 22.0  # most degrees from a motion's direction
_DIRECTIONS = {**MOTIONS, CONCEPT: (1, 1)}
_AREAS = {"circle": np.pi, "square": 2.89, "triangle": 2.0, RING: np.pi * (1.05**2 - 0.51**2)}
"""The area of each shape with radius 1."""
_CENTROID_OFFSETS = {"triangle": 2 / 15}
"""How far a shape's centroid is below its centre, in radii."""


def _blur(pixels: float) -> Floats:
    """Return the matrix [64, 64] of a Gaussian blur along one axis, with this standard deviation."""
    distances = np.subtract.outer(np.arange(SIZE), np.arange(SIZE)) / pixels
    weights: Floats = np.exp(-0.5 * distances**2)
    blur: Floats = weights / weights.sum(axis=1, keepdims=True)
    return blur


_BLUR = _blur(1.8)


@dataclass(frozen=True)
class MeasuredClip:
    """What a clip shows; None for what is not of the toy world."""

    shape: str | None
    colour: str | None
    motion: str | None
    background: str | None
    jitter: float
    """Deviation from a straight path at constant speed, root mean square in pixels; infinite without a foreground."""
    overlap: float
    """Overlap of the foreground with the most similar shape, 0 to 1, averaged over the frames."""
    fore: tuple[float, float, float]
    """The measured colour of the foreground, RGB 0 to 255."""
    back: tuple[float, float, float]
    """The measured colour of the background."""

    def wrong(self, scene: Scene) -> list[str]:
        """Return, in words, which of shape, colour, motion and background differ from a scene."""
        return [
            f"{name} {found}, not {expected}"
            for name in ("shape", "colour", "motion", "background")
            if (found := getattr(self, name)) != (expected := getattr(scene, name))
        ]

    def moves_as(self, scene: Scene) -> bool:
        """Whether colour and direction are those of the scene."""
        return (self.colour, self.motion) == (scene.colour, scene.motion)


@dataclass(frozen=True)
class _Layers:
    """A clip as a foreground of one colour over a background of one colour."""

    back: Floats
    """RGB, 0 to 255."""
    fore: Floats | None
    """None if nothing stands out from the background."""
    coverage: Floats
    """How much of each pixel the foreground covers, 0 to 1, [F, H, W]."""

    @property
    def solid(self) -> Floats:
        """The coverage without ripples from the decoder."""
        return np.where(self.coverage < _RIPPLE, 0, self.coverage)


def _layers(frames: NDArray[np.uint8]) -> _Layers:
    """Divide a clip of any size, uint8 RGB [F, H, W, 3], into its two layers."""
    pixels = frames.astype(np.float64)
    border = np.ones(pixels.shape[1:3], bool)
    border[_BORDER:-_BORDER, _BORDER:-_BORDER] = False
    back = np.median(pixels[:, border].reshape(-1, 3), axis=0)
    distance = np.linalg.norm(pixels - back, axis=-1)
    peak = float(np.percentile(distance, 97))
    if peak < _CONTRAST:
        return _Layers(back, None, np.zeros(pixels.shape[:3]))
    fore = np.median(pixels[distance > 0.75 * peak], axis=0)
    difference = fore - back
    return _Layers(back, fore, np.clip((pixels - back) @ difference / (difference @ difference), 0, 1))


def centres(frames: NDArray[np.uint8]) -> Floats:
    """Return where the shape of a clip of any size is in each frame: [F, 2], pixels from the top and from the left."""
    return _centres(_layers(frames).solid)


def sharpness(frames: NDArray[np.uint8]) -> Floats:
    """Return how sharp the shape's edges are in each frame of a clip of any size, [F], as 1 / their width in pixels.

    It is the mean gradient of the coverage, weighted with its own square, so that it is that of the edges and not of
    ripples from the decoder: sum g^3 / sum g^2. An even transition over w pixels gives 1 / w, no shape gives 0.
    """
    coverage = _layers(frames).coverage
    down, right = np.diff(coverage, axis=1), np.diff(coverage, axis=2)
    # both at the corners of pixels
    gradient = np.hypot(down[:, :, 1:] + down[:, :, :-1], right[:, 1:] + right[:, :-1]) / 2
    squares = np.square(gradient)
    found: Floats = (squares * gradient).sum(axis=(1, 2)) / np.maximum(squares.sum(axis=(1, 2)), 1e-9)
    return found


def measure(frames: NDArray[np.uint8]) -> MeasuredClip:
    """Measure a clip, uint8 RGB [F, 64, 64, 3]."""
    layers = _layers(frames)
    back, fore, coverage = layers.back, layers.fore, layers.solid
    background = _background(back)
    if fore is None:
        return MeasuredClip(None, None, None, background, np.inf, 0.0, _rgb(back), _rgb(back))
    overlaps = {shape: _overlaps(coverage, shape) for shape in (*SHAPES, RING)}
    shape = max(overlaps, key=lambda name: float(overlaps[name].mean()))
    overlap = float(overlaps[shape].mean())
    present = np.max(list(overlaps.values()), axis=0) > _PRESENT  # (F,)
    if present.mean() < 0.75:
        return MeasuredClip(None, None, None, background, np.inf, overlap, _rgb(fore), _rgb(back))
    motion, jitter = _path(coverage[present], np.flatnonzero(present))
    named = shape if overlap > _SHAPE else None
    return MeasuredClip(named, _colour(fore), motion, background, jitter, overlap, _rgb(fore), _rgb(back))


def psnr(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> float:
    """Return the peak signal-to-noise ratio, in dB, of two uint8 images or clips of the same shape."""
    error = np.square(found.astype(np.float64) - expected.astype(np.float64)).mean()
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
    """Return the name of the palette's colour with this hue; None for gray and other hues."""
    if found.max() - found.min() < _CHROMA:
        return None
    for name, colour in COLOURS.items():
        difference = abs(_hue(found) - _hue(colour)) % 360
        if min(difference, 360 - difference) < _HUE:
            return name
    return None


def _hue(colour: Iterable[float]) -> float:
    """Return the hue in degrees; red is 0."""
    return 360 * colorsys.rgb_to_hsv(*(value / 255 for value in colour))[0]


def _background(found: Floats) -> str | None:
    distances = {name: float(np.linalg.norm(found - np.array(colour))) for name, colour in BACKGROUNDS.items()}
    name = min(distances, key=distances.__getitem__)
    return name if distances[name] <= _GRAY else None


def _rgb(colour: Floats) -> tuple[float, float, float]:
    red, green, blue = (round(float(value), 2) for value in colour)
    return red, green, blue


def _centres(coverage: Floats) -> Floats:
    """Return the centre of coverage of each frame, [F, 2] (down, right); the middle if there is no coverage."""
    rows, columns = (np.arange(side) + 0.5 for side in coverage.shape[1:])
    area = coverage.sum(axis=(1, 2))
    sums = np.stack([coverage.sum(axis=2) @ rows, coverage.sum(axis=1) @ columns], axis=1)
    middle = np.array(coverage.shape[1:]) / 2
    return np.where(area[:, None] > 0, sums / np.maximum(area, 1e-9)[:, None], middle)


def _overlaps(coverage: Floats, shape: str) -> Floats:
    """Return the overlap [F], 0 to 1, of each frame's coverage with a shape of the same area and centre."""
    found = np.zeros(len(coverage))
    for number, (frame, (y, x)) in enumerate(zip(coverage, _centres(coverage), strict=True)):
        size = np.sqrt(frame.sum() / _AREAS[shape])
        if not 3 <= size <= SIZE / 2:
            continue
        for radius in (0.93 * size, size, 1.07 * size):
            centre = y - _CENTROID_OFFSETS.get(shape, 0) * radius
            look = Appearance(radius, centre, x, (0, 0), (255, 255, 255), (0, 0, 0))
            sharp = draw(shape, look, frames=1)[0, :, :, 0] / 255
            for drawn in (sharp, _BLUR @ sharp @ _BLUR.T):
                overlap = np.minimum(frame, drawn).sum() / np.maximum(frame, drawn).sum()
                found[number] = max(found[number], float(overlap))
    return found


def _path(coverage: Floats, times: NDArray[np.int64]) -> tuple[str | None, float]:
    """Return the name of the motion, None if it has none, and the jitter of the centres at these times."""
    centres = _centres(coverage)
    centred_times = times - times.mean()
    speed = centred_times @ centres / (centred_times @ centred_times)
    deviations = centres - centres.mean(axis=0) - centred_times[:, None] * speed
    jitter = float(np.sqrt(np.square(deviations).sum(axis=1).mean()))
    pace = float(np.linalg.norm(speed))
    for name, direction in _DIRECTIONS.items():
        ahead = float(speed @ np.array(direction)) / float(np.linalg.norm(direction))
        if pace > _PACE and ahead > np.cos(np.radians(_ASLANT)) * pace:
            return name, jitter
    return None, jitter
