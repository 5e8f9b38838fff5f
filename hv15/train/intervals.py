"""When something is done again and again during a training, such as previews and validations."""

from __future__ import annotations

from dataclasses import dataclass

from hv15.train.step_batches import StepBatches


@dataclass(frozen=True)
class Interval:
    """Every so many steps, every so many epochs, or both; None: not in this way."""

    every_n_steps: int | None
    every_n_epochs: int | None
    at_first: bool
    """Whether also before the first step."""

    def is_due(self, step: int, batches: StepBatches) -> bool:
        """Whether it is due after `step` finished steps."""
        if step == 0:
            return self.at_first
        if self.every_n_steps and step % self.every_n_steps == 0:
            return True
        every = self.every_n_epochs
        return bool(every and batches.finished_epochs(step) // every > batches.finished_epochs(step - 1) // every)
