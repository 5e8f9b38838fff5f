"""Watches the numbers of the steps: counts those that are not finite, gives up after too many, and warns of spikes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from hv15.errors import UserError
from hv15.records.metrics import StepRecord, WarningRecord
from hv15.train.spikes import Usual

MOST_NAMED = 8
"""The most clips that a message names; its record names all."""
BAD_AT_THE_END = 2
"""So many bad steps at the end of a training mean that the LoRA has diverged."""


@dataclass
class Watch:
    """The watch of one training."""

    total_steps: int
    max_bad_steps: int
    """So many bad steps in a row end the training."""
    skipped: int = 0
    """Bad steps so far."""
    in_a_row: int = 0
    """Bad steps since the last good one."""
    _loss: Usual = field(default_factory=Usual)
    _grad_norm: Usual = field(default_factory=Usual)

    def recall(self, steps: Iterable[StepRecord]) -> None:
        """Learn what is usual from the steps before a training resumes."""
        for each in steps:
            self._spikes(each.loss, each.grad_norm)

    def count(self, loss: float | None, grad_norm: float) -> bool:
        """Count a step; return whether it is good, as the device has decided by the same numbers.

        Args:
            loss: None if all of its clips are regularisation.
        """
        good = _is_good(loss, grad_norm)
        self.skipped += not good
        self.in_a_row = 0 if good else self.in_a_row + 1
        return good

    def warnings(
        self, step: int, loss: float | None, grad_norm: float, clips: Sequence[str]
    ) -> Iterator[WarningRecord]:
        """Yield what there is to say about a step.

        Args:
            step: its number, from 1.
            clips: the names of its clips.
        """
        named = _named(clips)
        if not _is_good(loss, grad_norm):
            numbers = f"the loss is {loss:.4g} and " if loss is not None else ""
            text = f"{numbers}the gradient norm {grad_norm:.4g}, so the step was skipped{named}"
            hint = "one such step does no harm; if it is always the same clip, look at it, or remove it"
            yield WarningRecord(step=step, message=text, hint=hint, clips=tuple(clips), skipped=True)
            return
        for what, value, usual in self._spikes(loss, grad_norm):
            text = f"{what} is {value:.4g}, {value / usual:.0f} times the usual {usual:.4g}{named}"
            hint = "look at these clips and their captions; if it happens often, lower train.learning_rate"
            yield WarningRecord(step=step, message=text, hint=hint, clips=tuple(clips))

    def gives_up(self, step: int) -> bool:
        """Whether the training ends here, after `step` steps."""
        most = self.max_bad_steps
        if step == self.total_steps:
            most = min(most, BAD_AT_THE_END, self.total_steps)
        return self.in_a_row >= most

    def refusal(self, step: int) -> UserError:
        """Return why the training ends after `step` steps; its state is saved then."""
        first = step - self.in_a_row + 1
        steps = f"steps {first} to {step}" if first < step else f"step {step}"
        return UserError(
            f"{steps}: the loss or the gradient is not a finite number: the training has diverged. These steps changed "
            "nothing, and the state is saved",
            hint="lower train.learning_rate or increase train.lr_warmup_steps; in the very first steps the cause may "
            "be a damaged model file (download it again) or the number format (set train.dtype to float32)",
        )

    def _spikes(self, loss: float | None, grad_norm: float | None) -> list[tuple[str, float, float]]:
        """Take a step's numbers; return those that are spikes, with what is usual."""
        both = ("the loss", loss, self._loss), ("the gradient norm", grad_norm, self._grad_norm)
        return [
            (what, value, found)
            for what, value, usual in both
            if value is not None and (found := usual.judge(value)) is not None
        ]


def _is_good(loss: float | None, grad_norm: float) -> bool:
    return math.isfinite(loss or 0.0) and math.isfinite(grad_norm)


def _named(clips: Sequence[str]) -> str:
    """The names of the first clips, as the end of a sentence."""
    names = list(dict.fromkeys(name for name in clips if name))
    if not names:
        return ""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f" (clips: {', '.join(names[:MOST_NAMED])}{more})"
