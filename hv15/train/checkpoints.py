"""Keeps copies of the LoRA during training: when, under which name, and which older copies to remove."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hv15.config.training.saving import SavingSettings
from hv15.records.metrics import CheckpointRecord
from hv15.records.paths import average_of, copy_of_step
from hv15.train.metrics import MetricsFile
from hv15.train.step_batches import StepBatches


@dataclass(frozen=True)
class CheckpointRule:
    """The settings of the same names: how often copies are made (None: never) and how many are kept (None: all)."""

    save_every_n_epochs: int | None
    save_every_n_steps: int | None
    save_last_n_epochs: int | None
    save_last_n_steps: int | None
    publish_step: int | None = None
    """The step whose copy is made and kept in any case."""

    @classmethod
    def from_settings(cls, options: SavingSettings) -> CheckpointRule:
        """Make the rule from `train:`."""
        return cls(
            save_every_n_epochs=options.save_every_n_epochs,
            save_every_n_steps=options.save_every_n_steps,
            save_last_n_epochs=options.save_last_n_epochs,
            save_last_n_steps=options.save_last_n_steps,
            publish_step=options.publish_step,
        )

    def due(self, step: int, epochs: int, epochs_before: int) -> list[str]:
        """Return the names of the checkpoints to write after a step.

        Args:
            step: number of finished steps.
            epochs: number of finished epochs after this step.
            epochs_before: number of finished epochs before it; a step may finish several epochs, or none.
        """
        names = []
        if step == self.publish_step or (self.save_every_n_steps and step % self.save_every_n_steps == 0):
            names.append(copy_of_step(step))
        every = self.save_every_n_epochs
        if every and epochs // every > epochs_before // every:
            names.append(f"lora-epoch{epochs // every * every:04d}.safetensors")
        return names

    def expired(self, folder: Path) -> list[Path]:
        """Return the checkpoints in the folder that the rule no longer keeps."""
        old: list[Path] = []
        for unit, last in (("step", self.save_last_n_steps), ("epoch", self.save_last_n_epochs)):
            if last is not None:
                old += _by_number(folder, unit)[:-last]
        return [path for path in old if self.publish_step is None or path.name != copy_of_step(self.publish_step)]


@dataclass(frozen=True)
class Checkpoints:
    """Writes the copies that are due, on the first process, and removes old ones."""

    rule: CheckpointRule
    batches: StepBatches
    folder: Path
    save_lora: Callable[[Path, int], Sequence[Path]]
    """Writes the current LoRA to a path, and its average beside it; the number is that of finished steps. Returns
    the files."""
    is_main_process: bool = True

    def is_due(self, step: int) -> bool:
        return bool(self._names(step))

    def run(self, step: int, metrics: MetricsFile) -> None:
        """Write and remove copies.

        Raises:
            UserError: the disk is full.
        """
        if not self.is_main_process:
            return
        for name in self._names(step):
            for path in self.save_lora(self.folder / name, step):
                metrics.write(CheckpointRecord(step=step, path=f"{self.folder.name}/{path.name}"))
        for path in self.rule.expired(self.folder):
            path.unlink(missing_ok=True)
            average_of(path).unlink(missing_ok=True)

    def _names(self, step: int) -> list[str]:
        if step == 0:
            return []
        return self.rule.due(step, self.batches.finished_epochs(step), self.batches.finished_epochs(step - 1))


def _by_number(folder: Path, unit: str) -> list[Path]:
    """Return the checkpoints that were made by steps or by epochs, oldest first."""
    matches = ((re.fullmatch(rf"lora-{unit}(\d+)\.safetensors", path.name), path) for path in folder.glob("lora-*"))
    return [path for _, path in sorted((int(match[1]), path) for match, path in matches if match)]
