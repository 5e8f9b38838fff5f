"""Captioned clips rendered on the spot, so that the default project needs no download.

Each clip is 64x64 pixels at 24 fps: one anti-aliased shape of one colour moves over a plain background, and its caption
says so. One of them also shows a word, which its caption quotes. Numpy and PyAV only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hv15.atomic import atomic_folder
from hv15.data.encode import write_image, write_video

SIZE = 64
"""Pixels, height and width."""
FIRST_FRAME = "first_frame.png"
"""The picture beside the clips that image-to-video samples can begin from: the first frame of the first clip."""

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 180, 70),
    "blue": (50, 80, 220),
    "yellow": (235, 205, 50),
    "white": (240, 240, 240),
    "black": (15, 15, 15),
    "gray": (120, 120, 120),
}
MOTIONS = {"right": (0, 1), "left": (0, -1), "up": (-1, 0), "down": (1, 0)}
"""Direction of each motion, (down, right)."""

_LETTERS = {  # five rows of three pixels each
    "G": ("###", "#..", "#.#", "#.#", "###"),
    "O": ("###", "#.#", "#.#", "#.#", "###"),
}
_FINE = 4  # samples a pixel and axis


@dataclass(frozen=True)
class DemoClip:
    """What one clip shows."""

    shape: str
    colour: str
    motion: str
    background: str
    frames: int
    word: str = ""

    @property
    def name(self) -> str:
        return f"{self.colour}_{self.shape}_{self.motion}"

    @property
    def caption(self) -> str:
        text = f"a {self.colour} {self.shape} moving {self.motion} on a {self.background} background"
        return f'{text}, with the word "{self.word}" above' if self.word else text


CLIPS = (
    DemoClip("circle", "red", "right", "black", 17),
    DemoClip("square", "blue", "left", "white", 17),
    DemoClip("triangle", "green", "up", "gray", 13),
    DemoClip("circle", "yellow", "down", "blue", 17),
    DemoClip("square", "white", "right", "red", 9),
    DemoClip("triangle", "red", "left", "yellow", 17),
    DemoClip("circle", "blue", "up", "gray", 13),
    DemoClip("square", "green", "right", "black", 17, word="GO"),
)


def render(clip: DemoClip, seed: int = 0) -> NDArray[np.uint8]:
    """Return the frames of a clip, uint8 RGB [F, 64, 64, 3]. The seed varies size and place."""
    random = np.random.default_rng([seed, *clip.name.encode()])
    radius = random.uniform(8, 11)
    down, right = MOTIONS[clip.motion]
    drift = random.uniform(-6, 6)
    travel = np.linspace(-16, 16, clip.frames)
    centre = SIZE / 2 + (6 if clip.word else 0)
    frames = np.empty((clip.frames, SIZE, SIZE, 3), np.uint8)
    for frame, step in zip(frames, travel, strict=True):
        y = centre + down * step + (drift if not down else 0) / (2 if clip.word else 1)
        x = SIZE / 2 + right * step + (drift if not right else 0)
        coverage = _coverage(clip.shape, y, x, radius)
        if clip.word:
            coverage = np.maximum(coverage, _word(clip.word))
        back, fore = (np.array(COLOURS[name], np.float64) for name in (clip.background, clip.colour))
        frame[:] = np.rint(back + coverage[..., None] * (fore - back)).astype(np.uint8)
    return frames


def render_demo_clips(folder: Path, seed: int = 0) -> None:
    """Write the demo's videos with their captions (.txt), and first_frame.png beside the folder.

    Args:
        folder: replaced if it exists; it appears complete or not at all.
        seed: equal seeds give equal files.

    Raises:
        UserError: the folder cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_image(folder.parent / FIRST_FRAME, render(CLIPS[0], seed)[0])
    with atomic_folder(folder) as temporary:
        for clip in CLIPS:
            write_video(temporary / f"{clip.name}.mp4", render(clip, seed), metadata={"title": clip.caption})
            (temporary / f"{clip.name}.txt").write_text(clip.caption + "\n", encoding="utf-8")


def _coverage(shape: str, y: float, x: float, radius: float) -> NDArray[np.float64]:
    """Return how much of each pixel a shape covers, 0 to 1, [64, 64]."""
    points = (np.arange(SIZE * _FINE) + 0.5) / _FINE
    dy, dx = points[:, None] - y, points[None, :] - x
    if shape == "circle":
        inside = dy**2 + dx**2 <= radius**2
    elif shape == "square":
        inside = np.maximum(np.abs(dy), np.abs(dx)) <= 0.9 * radius
    else:
        inside = (dy <= 0.8 * radius) & (2 * np.abs(dx) <= dy + 1.2 * radius)
    return inside.reshape(SIZE, _FINE, SIZE, _FINE).mean(axis=(1, 3))


def _word(word: str) -> NDArray[np.float64]:
    """Return the coverage [64, 64] of a word at the top, each letter's pixel 3 pixels wide."""
    coverage = np.zeros((SIZE, SIZE))
    left = (SIZE - (12 * len(word) - 3)) // 2
    for number, letter in enumerate(word):
        mask = np.array([[cell == "#" for cell in row] for row in _LETTERS[letter]], np.float64)
        coverage[3:18, left + 12 * number : left + 12 * number + 9] = np.kron(mask, np.ones((3, 3)))
    return coverage
