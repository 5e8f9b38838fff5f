"""Assigns micro-batches to optimizer steps, on one process or on several."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from hv15.cache.batches import BatchStream, MicroBatch


@dataclass(frozen=True)
class StepBatches:
    """Divides the endless stream of micro-batches into steps of `accumulation * processes` consecutive ones.

    Process r takes every `processes`-th of them, so a step of N processes has the same samples as a step of one process
    with N times the accumulation. Steps cross the ends of epochs, so all have the same number of micro-batches. With
    context parallelism, a group of processes that compute each micro-batch together counts as one process.
    """

    stream: BatchStream
    accumulation: int
    """Number of micro-batches in a step on each process (`train.gradient_accumulation_steps`)."""
    processes: int = 1
    offset: int = 0
    """Number of micro-batches by which the steps are ahead of their place in the stream. Not 0 only after a start from
    another training whose steps had other batches."""

    @classmethod
    def after(cls, step: int, samples: int, stream: BatchStream, accumulation: int, processes: int = 1) -> StepBatches:
        """Return the steps of a training that counts on from `step` steps of another, which used so many samples."""
        offset = stream.index_at(samples) - step * accumulation * processes
        return cls(stream, accumulation, processes, offset)

    @property
    def batches_per_step(self) -> int:
        return self.accumulation * self.processes

    def total_steps(self, max_steps: int | None, max_epochs: int | None) -> int:
        """Return the number of steps of the training: `max_steps`, or as many as `max_epochs` epochs need."""
        if max_steps is not None:
            return max_steps
        if max_epochs is None:
            raise ValueError("max_steps or max_epochs is required")
        return math.ceil((max_epochs * self.stream.batches_per_epoch - self.offset) / self.batches_per_step)

    def epochs(self, step: int) -> float:
        """Return the number of epochs, including a fraction, that are finished after this many steps."""
        return self._first(step) / self.stream.batches_per_epoch

    def finished_epochs(self, step: int) -> int:
        return self._first(step) // self.stream.batches_per_epoch

    def samples(self, step: int) -> int:
        """Return the number of samples that are used after this many steps."""
        return self.stream[self._first(step)].first_sample

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
