"""How pixels become latent cells: the VAE's compression, the same in every HunyuanVideo 1.5 checkpoint. No torch."""

from __future__ import annotations

PIXELS_PER_CELL = 16
"""Height and width of a latent cell in pixels."""

FRAMES_PER_CELL = 4
"""Frames of a latent frame; the first frame of a video has one of its own."""


def latent_size(frames: int, height: int, width: int) -> tuple[int, int, int]:
    """Return latent frames, height and width of a video of 4k+1 frames, its sides multiples of 16 pixels."""
    return (frames - 1) // FRAMES_PER_CELL + 1, height // PIXELS_PER_CELL, width // PIXELS_PER_CELL
