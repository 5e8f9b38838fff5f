"""Assigns micro-batches to optimizer steps, on one process or on several."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from hv15.cache.batches import MicroBatch, TrainingItem
from hv15.train.scheduled import ScheduledStream


class MicroBatchStream(Protocol):
    """A sequence of micro-batches (`BatchStream`, `ScheduledStream`)."""

    @property
    def samples_per_batch(self) -> float: ...

    def __getitem__(self, index: int) -> MicroBatch: ...

    def samples_before(self, index: int) -> int: ...

    def epochs(self, index: int) -> float: ...

    def finished_epochs(self, index: int) -> int: ...

    def index_after(self, epochs: int) -> int: ...


@dataclass(frozen=True)
class StepBatches:
    """Divides the endless stream of micro-batches into steps of `accumulation * processes` consecutive ones.

    Process r takes every `processes`-th of them, so a step of N processes has the same samples as a step of one process
    with N times the accumulation. Steps cross the ends of epochs, so all have the same number of micro-batches. With
    context parallelism, a group of processes that compute each micro-batch together counts as one process.
    """

    stream: MicroBatchStream
    accumulation: int
    """Number of micro-batches in a step on each process (`train.gradient_accumulation_steps`)."""
    processes: int = 1
    offset: int = 0
    """Number of micro-batches by which the steps are ahead of their place in the stream. Not 0 only after a start from
    another training whose steps had other batches."""

    @classmethod
    def of_items(
        cls,
        items: Sequence[TrainingItem],
        seed: int,
        accumulation: int,
        processes: int = 1,
        *,
        step: int = 0,
        samples: int = 0,
    ) -> StepBatches:
        """Return the steps of a training, which may count on from `step` steps of another that used so many samples.

        Raises:
            UserError: see `ScheduledStream`.
        """
        stream = ScheduledStream(items, seed, accumulation * processes, step, samples)
        return cls(stream, accumulation, processes, stream.offset)

    @property
    def batches_per_step(self) -> int:
        return self.accumulation * self.processes

    def total_steps(self, max_steps: int | None, max_epochs: int | None) -> int:
        """Return the number of steps of the training: `max_steps`, or as many as `max_epochs` epochs need.

        Raises:
            UserError: nothing takes part in some of its steps.
        """
        if max_steps is not None:
            _ = self.stream[self._first(max_steps) - 1]  # raises if nothing takes part at the end
            return max_steps
        if max_epochs is None:
            raise ValueError("max_steps or max_epochs is required")
        return math.ceil((self.stream.index_after(max_epochs) - self.offset) / self.batches_per_step)

    def epochs(self, step: int) -> float:
        """Return the number of epochs, including a fraction, that are finished after this many steps."""
        return self.stream.epochs(self._first(step))

    def finished_epochs(self, step: int) -> int:
        return self.stream.finished_epochs(self._first(step))

    def samples(self, step: int) -> int:
        """Return the number of samples that are used after this many steps."""
        return self.stream.samples_before(self._first(step))

    def of_step(self, step: int) -> list[MicroBatch]:
        """Return all processes' micro-batches of the step with this index."""
        start = self._first(step)
        return [self.stream[index] for index in range(start, start + self.batches_per_step)]

    def together(self, index: int) -> list[MicroBatch]:
        """Return the micro-batches that all processes compute at the same time as the one at this global index."""
        start = index - (index - self.offset) % self.processes
        return [self.stream[each] for each in range(start, start + self.processes)]

    def share(self, first_step: int, total_steps: int, process: int = 0) -> Iterator[tuple[int, MicroBatch]]:
        """Yield (global index, micro-batch) of everything that one process computes from `first_step` on, in order."""
        for index in range(self._first(first_step) + process, self._first(total_steps), self.processes):
            yield index, self.stream[index]

    def _first(self, step: int) -> int:
        """Return the position in the stream of the first micro-batch of the step with this index."""
        return self.offset + step * self.batches_per_step
