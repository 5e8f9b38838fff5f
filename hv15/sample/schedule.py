"""The noise levels of the sampler's steps."""

from __future__ import annotations

import torch
from torch import Tensor

from hv15.errors import UserError
from hv15.noise.levels import shifted


def sigmas(steps: int, shift: float) -> Tensor:
    """Return the noise levels of a run of Euler steps: float32 [steps + 1], from 1 (noise) down to 0 (data).

    sigma = shift*s / (1 + (shift-1)*s) for `steps + 1` evenly spaced s, as in the official implementation. A shift
    above 1 puts more of the steps at high noise, where the layout of the video is decided.

    Raises:
        UserError: there are no steps, or the shift is not positive.
    """
    if steps < 1:
        raise UserError(f"infer_steps: found {steps}, expected at least 1", hint="use for example 50")
    if not shift > 0:
        raise UserError(f"flow_shift: found {shift}, expected a positive number", hint="use for example 5 to 9")
    return shifted(torch.linspace(1, 0, steps + 1), shift)
