"""Which micro-batches make up which optimizer step, on one process or on several."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from hv15.cache.batches import BatchStream, MicroBatch


@dataclass(frozen=True)
class StepBatches:
    """Cuts the endless stream of micro-batches into steps of `accumulation * processes` consecutive ones.

    Process r takes every `processes`-th of them, so N processes see in a step what one process with N times the
    accumulation sees. Steps run across the ends of epochs: every step has the same number of micro-batches.
    """

    stream: BatchStream
    accumulation: int
    """Micro-batches of a step on each process (`train.gradient_accumulation_steps`)."""
    processes: int = 1

    @property
    def batches_per_step(self) -> int:
        return self.accumulation * self.processes

    def total_steps(self, max_steps: int | None, max_epochs: int | None) -> int:
        """Return the length of the training: `max_steps`, or the steps in which `max_epochs` epochs are finished."""
        if max_steps is not None:
            return max_steps
        if max_epochs is None:
            raise ValueError("max_steps or max_epochs is needed")
        return math.ceil(max_epochs * self.stream.batches_per_epoch / self.batches_per_step)

    def epochs(self, step: int) -> float:
        """Return how many epochs are finished after this many steps; the whole part counts complete ones."""
        return step * self.batches_per_step / self.stream.batches_per_epoch

    def finished_epochs(self, step: int) -> int:
        return step * self.batches_per_step // self.stream.batches_per_epoch

    def of_step(self, step: int) -> list[MicroBatch]:
        """Return the micro-batches of the step with this index, of all processes."""
        start = step * self.batches_per_step
        return [self.stream[index] for index in range(start, start + self.batches_per_step)]

    def share(self, first_step: int, total_steps: int, process: int = 0) -> Iterator[tuple[int, MicroBatch]]:
        """Yield (global index, micro-batch) of all that one process does from `first_step` on, in order."""
        start, end = first_step * self.batches_per_step + process, total_steps * self.batches_per_step
        for index in range(start, end, self.processes):
            yield index, self.stream[index]
