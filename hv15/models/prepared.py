"""What the transformer makes of a condition once for all steps of a sample.

    prepared = dit.prepare(cond)
    for timestep in timesteps:
        velocity = dit(x, timestep, prepared)

Of the way from the condition to the tokens that enter the blocks, these do not depend on the timestep or the latents:

- the projections of the first image and of the quoted texts, with their type embeddings, without padding;
- the text's projection, the embedding of its mean state, and the attention of the refiner's first block, up to its
  gate.

The rest of the refiner depends on the timestep. So does what the blocks compute of the condition tokens, because their
modulation and the image tokens do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hv15.models.refiner import PreparedText


@dataclass(frozen=True)
class PreparedCondition:
    """A condition after the layers that need no timestep. It is for the weights and LoRAs with which it was made.

    A pass with it gives the same bits as with the `Condition`.
    """

    others: tuple[Tensor, ...]
    """Tokens of the first image and of quoted texts, those that there are, [B, N, hidden]."""
    other_lengths: tuple[list[int], ...]
    """Valid tokens of each sample, for each of `others`."""
    text: PreparedText
    text_lengths: list[int]
    """Valid text tokens of each sample."""

    @property
    def batch(self) -> int:
        return len(self.text_lengths)

    @property
    def lengths(self) -> tuple[int, ...]:
        """All numbers of valid tokens."""
        return (*(length for lengths in self.other_lengths for length in lengths), *self.text_lengths)

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, of any shapes."""
        return [*self.others, *self.text]

    def copied(self) -> PreparedCondition:
        """Return a copy in memory of its own."""
        others, text = _each(self.others, torch.Tensor.clone), _each(self.text, torch.Tensor.clone)
        return PreparedCondition(others, self.other_lengths, PreparedText(*text), self.text_lengths)


def _each(tensors: tuple[Tensor, ...], change: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
    return tuple(change(tensor) for tensor in tensors)
