"""The model's noise levels: sigma from 0 (data) to 1 (noise), its timestep, and the shift."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

Sigma = TypeVar("Sigma", float, "Tensor")

TIMESTEPS = 1000.0
"""The model's timestep is sigma times this, as a float that is never rounded."""


def shifted(sigma: Sigma, shift: float) -> Sigma:
    """Move a sigma, or sigmas of any shape, towards noise (shift > 1) or data (shift < 1): k*s / (1 + (k-1)*s).

    The formula is that of the official schedule; k is the shift. A shift by 1/k undoes it.
    """
    return shift * sigma / (1 + (shift - 1) * sigma)
