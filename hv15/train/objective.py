"""What a micro-batch is trained on: its clips' own velocity, the prediction of the model without the LoRA, or both.

- A clip: the loss against its own velocity, under its mask.
- A clip with `masked_prior_preservation_weight`: plus that times the loss against the prediction without the LoRA,
  under 1 - mask. Each of the two is a mean over its own area (hv15.train.losses).
- A regularisation clip with `reg_target: prior`: the loss against the prediction without the LoRA, under its mask.

Keeping what the model predicted before is the prior preservation of Ruiz et al. 2023 ("DreamBooth"), but with the
prediction itself as the target instead of samples of the model, so that at the start of a training it is exactly 0.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from hv15.train.examples import Example
from hv15.train.losses import LossFunction


class ExampleLosses(NamedTuple):
    """The losses of a micro-batch, fp32 [B]."""

    minimised: Tensor
    recorded: Tensor | None
    """Against the clips' own velocity, without gradients; None if that is not their target."""
    prior: Tensor | None
    """Against the prediction without the LoRA, without gradients; None if that is not a target."""


def losses_of(loss: LossFunction, example: Example, prediction: Tensor, prior: Tensor | None) -> ExampleLosses:
    """Return the losses of a prediction, fp32 [B, C, F, H, W].

    Args:
        prior: that of the model without the LoRA; needed if `example.with_prior`, and perhaps not used.
    """
    if example.targets_prior:
        assert prior is not None
        kept = loss(prediction - prior, example.sigma, example.mask)
        return ExampleLosses(kept.minimised, None, kept.recorded)
    own = loss(prediction - example.velocity(), example.sigma, example.mask)
    if not example.outside_weight or example.mask is None:
        return ExampleLosses(own.minimised, own.recorded, None)
    assert prior is not None
    kept = loss(prediction - prior, example.sigma, 1 - example.mask)
    return ExampleLosses(own.minimised + example.outside_weight * kept.minimised, own.recorded, kept.recorded)
