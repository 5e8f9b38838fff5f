"""How the model counts noise: sigma from 0 (data) to 1 (noise), its timestep, and the shift. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

TIMESTEPS = 1000.0
"""The model's timestep is sigma times this: float, never rounded."""


def shifted(sigma: Tensor, shift: float) -> Tensor:
    """Move sigmas towards noise (shift > 1) or data (shift < 1): k*s / (1 + (k-1)*s), as in the official schedule.

    Sigmas of any shape.
    """
    return shift * sigma / (1 + (shift - 1) * sigma)
