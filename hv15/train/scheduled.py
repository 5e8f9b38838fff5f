"""The micro-batches of a training in which datasets begin and end (`start_step`, `end_step`).

It has parts, in each of which the same datasets take part. Each part begins a new epoch, which is one pass over what
takes part in it; an epoch that is cut off by the end of its part counts as one. So everything follows from the settings
and the step, and a training that resumes in any part goes on as if it had not stopped.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from hv15.cache.batches import BatchStream, MicroBatch, TrainingItem
from hv15.errors import UserError
from hv15.spans import Span, parts


class _Part(NamedTuple):
    span: Span
    first: int
    """Position of its first micro-batch."""
    epoch: int
    """Number of epochs before it."""
    sample: int
    """Number of samples before it."""
    stream: BatchStream | None
    """None if nothing takes part."""


class ScheduledStream:
    """The sequence of micro-batches, with positions as in `BatchStream`.

    A training that counts on from another one, after `step` steps that used `samples` samples, goes on behind these
    samples in the part that holds the step.

    Args:
        batches_per_step: micro-batches in a step on all processes.

    Raises:
        UserError: there are no items, or none in a part that has an end.
    """

    def __init__(
        self, items: Sequence[TrainingItem], seed: int, batches_per_step: int, step: int = 0, samples: int = 0
    ) -> None:
        self.offset = 0
        """Number of micro-batches by which the steps are ahead of their place in the sequence (`StepBatches`)."""
        self._parts: list[_Part] = []
        first = epoch = sample = 0
        for span in parts(item.span for item in items):
            shown = [item for item in items if item.span.has(span.start)]
            if not shown and items and span.end is not None and span.end > step:
                raise _nothing(span)
            stream = BatchStream(shown, seed, epoch, sample) if shown or not items else None
            self._parts.append(_Part(span, first, epoch, sample, stream))
            if stream is not None and span.has(step):
                self.offset = first + stream.index_at(max(samples, sample)) - step * batches_per_step
            if span.end is None:
                break
            end = span.end * batches_per_step + (self.offset if span.end > step else 0)
            if stream is not None:
                epoch, sample = stream.begun_epochs(end - first), stream.samples_before(end - first)
            first = end
        self._firsts = [part.first for part in self._parts]

    def __getitem__(self, index: int) -> MicroBatch:
        """Return the micro-batch at a position.

        Raises:
            UserError: nothing takes part in its step.
        """
        part = self._part(index)
        if part.stream is None:
            raise _nothing(part.span)
        return part.stream[index - part.first]

    @property
    def samples_per_batch(self) -> float:
        """Samples of a micro-batch, in the mean over the part that has the fewest."""
        return min(part.stream.samples_per_batch for part in self._parts if part.stream is not None)

    def samples_before(self, index: int) -> int:
        """Return the number of samples before the micro-batch at a position."""
        part = self._part(index)
        return part.sample if part.stream is None else part.stream.samples_before(index - part.first)

    def epochs(self, index: int) -> float:
        """Return the number of epochs, including a fraction, before the micro-batch at a position."""
        part = self._part(index)
        return part.epoch if part.stream is None else part.stream.epochs(index - part.first)

    def finished_epochs(self, index: int) -> int:
        part = self._part(index)
        return part.epoch if part.stream is None else part.stream.finished_epochs(index - part.first)

    def index_after(self, epochs: int) -> int:
        """Return the position at which so many epochs are finished.

        Raises:
            UserError: at some step before, nothing takes part any more.
        """
        for part, following in pairwise(self._parts):
            if part.stream is not None and epochs <= following.epoch:
                return min(part.first + part.stream.index_after(epochs), following.first)
        last = self._parts[-1]
        if last.stream is None:
            raise _nothing(last.span)
        return last.first + last.stream.index_after(epochs)

    def _part(self, index: int) -> _Part:
        return self._parts[max(0, bisect_right(self._firsts, index) - 1)]


def _nothing(span: Span) -> UserError:
    return UserError(
        f"no clip is left to train on {span}",
        hint="see start_step and end_step of `datasets`; `hv15 report` says why files were left out",
    )
