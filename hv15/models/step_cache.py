"""Step caching: in some of a sampler's steps, the blocks are not computed but taken from an earlier step.

The first and last layers, and the time vector that they use, are always those of the current step. Three rules are
those of the official program, in which the steps are chosen beforehand:

- deepcache: the tokens that enter the last block stay as they were; the last block is computed.
- teacache: the tokens after the last block stay as they were. (It is not the rule of the paper of that name.)
- taylorcache: the tokens after the last block are extrapolated from up to three steps (Taylor terms up to order 2). The
  official program does this for low and high frequencies apart, which in exact arithmetic is the same.

With the fourth the model's input decides:

- adaptive: what the blocks added to the tokens is added to the current tokens, until the input of the first block has
  changed by more than a threshold since (Liu et al. 2024, "Timestep Embedding Tells: It's Time to Cache", without that
  paper's fit to a model).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hv15.choices import StepCacheRule
from hv15.models.passes import modulate

if TYPE_CHECKING:
    from hv15.models.recompute import BlockCall


class StepCache(ABC):
    """What is kept of the blocks of one branch of the guidance, from step to step of one sample."""

    step = 0
    """The number of the current step; a branch need not compute in every one."""

    def __init__(self) -> None:
        self.computed: list[int] = []
        """The steps in which all blocks were computed."""

    def run(self, calls: Sequence[BlockCall], img: Tensor, txt: Tensor, vec: Tensor) -> Tensor:
        """Return the image tokens after the last block, [B, N, hidden].

        Args:
            calls: all blocks.
            img, txt, vec: what enters the first: [B, N, hidden], [B, M, hidden], [B, hidden].
        """
        if not self.is_due(calls, img, vec):
            return self.reuse(calls, img, vec)
        img = self.compute(calls, img, txt, vec)
        self.computed.append(self.step)
        return img

    @abstractmethod
    def is_due(self, calls: Sequence[BlockCall], img: Tensor, vec: Tensor) -> bool:
        """Whether all blocks are computed in this step; img [B, N, hidden] and vec [B, hidden] as in `run`."""

    @abstractmethod
    def compute(self, calls: Sequence[BlockCall], img: Tensor, txt: Tensor, vec: Tensor) -> Tensor:
        """Compute all blocks, keep what later steps need, and return the image tokens [B, N, hidden], as `run`."""

    @property
    @abstractmethod
    def kept(self) -> Sequence[Tensor]:
        """The token states [B, N, hidden] that are kept now."""

    @abstractmethod
    def reuse(self, calls: Sequence[BlockCall], img: Tensor, vec: Tensor) -> Tensor:
        """Return the image tokens [B, N, hidden] of this step from what was kept, as `run`."""


class Planned(StepCache):
    """A rule whose steps are chosen beforehand.

    Args:
        whole: for each step, whether all blocks are computed. They are in any case until something is kept.
    """

    def __init__(self, whole: Sequence[bool]) -> None:
        super().__init__()
        self._whole = whole

    def is_due(self, calls: Sequence[BlockCall], img: Tensor, vec: Tensor) -> bool:
        return self._whole[self.step] or not self.can_reuse

    @property
    def can_reuse(self) -> bool:
        """Whether anything is kept."""
        return bool(self.kept)


class DeepCache(Planned):
    """Keeps what enters the last block."""

    def __init__(self, whole: Sequence[bool]) -> None:
        super().__init__(whole)
        self._kept: tuple[Tensor, ...] = ()

    @property
    def kept(self) -> Sequence[Tensor]:
        return self._kept

    def compute(self, calls: Sequence[BlockCall], img: Tensor, txt: Tensor, vec: Tensor) -> Tensor:
        self._kept = ()
        *others, last = calls
        for call in others:
            img, txt = call(img, txt, vec)
        self._kept = img.clone(), txt.clone()  # the last block may write into its input
        return last(img, txt, vec)[0]

    def reuse(self, calls: Sequence[BlockCall], img: Tensor, vec: Tensor) -> Tensor:
        img, txt = (kept.clone() for kept in self._kept)
        return calls[-1](img, txt, vec)[0]


class TaylorCache(Planned):
    """Extrapolates the tokens after the last block.

    Args:
        whole: as in `Planned`.
        order: the highest order of a term; 0 keeps the tokens as they were (the rule `teacache`).
    """

    def __init__(self, whole: Sequence[bool], order: int = 2) -> None:
        super().__init__(whole)
        self._order = order
        self._terms: list[Tensor] = []

    @property
    def kept(self) -> Sequence[Tensor]:
        return self._terms

    def compute(self, calls: Sequence[BlockCall], img: Tensor, txt: Tensor, vec: Tensor) -> Tensor:
        img = _all_blocks(calls, img, txt, vec)
        if self.computed or not self._order:  # the official program takes no term from the first step
            terms = [img.clone()]
            for former in self._terms[: self._order]:
                terms.append((terms[-1] - former) / (self.step - self.computed[-1]))
            self._terms = terms
        return img

    def reuse(self, calls: Sequence[BlockCall], img: Tensor, vec: Tensor) -> Tensor:
        ahead = self.step - self.computed[-1]
        total, factor = self._terms[0].clone(), 1.0
        for order, term in enumerate(self._terms[1:], start=1):
            factor *= ahead / order
            total.add_(term, alpha=factor)
        return total


class AdaptiveCache(StepCache):
    """Adds what the blocks added before, until their input has changed enough.

    Args:
        threshold: the sum of the relative changes from step to step (mean of the absolute values) up to which it is
            reused.
        steps: of the sample; the first and the last are computed.
    """

    def __init__(self, threshold: float, steps: int) -> None:
        super().__init__()
        self._threshold, self._steps = threshold, steps
        self._changed = 0.0
        self._input: Tensor | None = None
        self._added: Tensor | None = None

    @property
    def kept(self) -> Sequence[Tensor]:
        return [each for each in (self._input, self._added) if each is not None]

    def is_due(self, calls: Sequence[BlockCall], img: Tensor, vec: Tensor) -> bool:
        calls[0].tell_hooks()  # block swap brings its weights
        shift, scale = calls[0].block.img_mod(vec)[:2]
        seen, before = modulate(img, shift, scale), self._input
        self._input = seen
        if before is None or self._added is None:
            return True
        self._changed += float((seen - before).abs().mean() / before.abs().mean())  # waits for the device
        return self._changed >= self._threshold or self.step == self._steps - 1

    def compute(self, calls: Sequence[BlockCall], img: Tensor, txt: Tensor, vec: Tensor) -> Tensor:
        self._changed, self._added = 0.0, None
        before = img.clone()
        img = _all_blocks(calls, img, txt, vec)
        self._added = torch.sub(img, before, out=before)
        return img

    def reuse(self, calls: Sequence[BlockCall], img: Tensor, vec: Tensor) -> Tensor:
        assert self._added is not None
        return img + self._added


def _all_blocks(calls: Sequence[BlockCall], img: Tensor, txt: Tensor, vec: Tensor) -> Tensor:
    for call in calls:
        img, txt = call(img, txt, vec)
    return img


def whole_steps(steps: int, *, start: float, end: float, interval: int, least: int) -> list[bool]:
    """Return for each step of a sample whether all blocks are computed.

    As in the official program (there with steps 11 and 45 of 50, and every fourth between them): all before `start`,
    from there every `interval`-th, and all from `end` on.

    Args:
        start, end: parts of the steps, from 0 to 1.
        least: steps at the beginning that are computed whatever `start` says: the rule needs them.
    """
    first, last = max(round(start * steps), least), min(round(end * steps), steps - 1)
    return [step < first or step >= last or (step - first) % interval == 0 for step in range(steps)]


def kept_tokens(rule: StepCacheRule, image: int, condition: int) -> int:
    """Return of how many tokens a rule keeps states [hidden] for each branch of guidance.

    Args:
        image, condition: the numbers of tokens in a block.
    """
    return {
        "deepcache": image + condition,
        "teacache": image,
        "taylorcache": 3 * image,
        "adaptive": 2 * image,
    }[rule]
