"""The model's noise levels: sigma from 0 (data) to 1 (noise), its timestep, and the shift. Does not need torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

TIMESTEPS = 1000.0
"""The model's timestep is sigma times this, as a float that is never rounded."""


def shifted(sigma: Tensor, shift: float) -> Tensor:
    """Move sigmas of any shape towards noise (shift > 1) or data (shift < 1): k*s / (1 + (k-1)*s).

    The formula is that of the official schedule; k is the shift.
    """
    return shift * sigma / (1 + (shift - 1) * sigma)
