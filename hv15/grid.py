"""What holds for every HunyuanVideo 1.5 checkpoint: the frame rate, and how pixels become latent cells. No torch."""

from __future__ import annotations

FPS = 24.0
"""Frames per second of the videos that the model was made for."""

PIXELS_PER_CELL = 16
"""Height and width of a latent cell in pixels: sizes of videos are multiples of it."""

FRAMES_PER_CELL = 4
"""Frames in one latent frame. The first frame of a video has a latent frame of its own, so videos have 4k+1 frames."""


def encodable_frames(frames: int) -> int:
    """Return the largest 4k+1 that is at most this number of frames (below 1 if there is none)."""
    return (frames - 1) // FRAMES_PER_CELL * FRAMES_PER_CELL + 1


def encodable_side(pixels: int) -> int:
    """Return the largest multiple of 16 that is at most this height or width in pixels."""
    return pixels // PIXELS_PER_CELL * PIXELS_PER_CELL


def latent_size(frames: int, height: int, width: int) -> tuple[int, int, int]:
    """Return latent frames, height and width of a video of 4k+1 frames, its sides multiples of 16 pixels."""
    return (frames - 1) // FRAMES_PER_CELL + 1, height // PIXELS_PER_CELL, width // PIXELS_PER_CELL


def video_size(frames: int, height: int, width: int) -> tuple[int, int, int]:
    """Return frames, height and width in pixels of a video of this latent size: the inverse of `latent_size`."""
    return (frames - 1) * FRAMES_PER_CELL + 1, height * PIXELS_PER_CELL, width * PIXELS_PER_CELL
