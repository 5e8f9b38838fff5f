"""When to keep a copy of the LoRA during training, under which name, and which older copies to remove."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hv15.config.train import TrainSettings


@dataclass(frozen=True)
class CheckpointRule:
    """The settings of the same names: how often copies are made (None: never) and how many are kept (None: all)."""

    save_every_n_epochs: int | None
    save_every_n_steps: int | None
    save_last_n_epochs: int | None
    save_last_n_steps: int | None

    @classmethod
    def from_settings(cls, options: TrainSettings) -> CheckpointRule:
        """Make the rule from `train:`."""
        return cls(
            save_every_n_epochs=options.save_every_n_epochs,
            save_every_n_steps=options.save_every_n_steps,
            save_last_n_epochs=options.save_last_n_epochs,
            save_last_n_steps=options.save_last_n_steps,
        )

    def due(self, step: int, epochs: int, epochs_before: int) -> list[str]:
        """Return the names of the checkpoints to write after a step.

        Args:
            step: number of finished steps.
            epochs: number of finished epochs after this step.
            epochs_before: number of finished epochs before it; a step may finish several epochs, or none.
        """
        names = []
        if self.save_every_n_steps and step % self.save_every_n_steps == 0:
            names.append(f"lora-step{step:06d}.safetensors")
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
        return old


def _by_number(folder: Path, unit: str) -> list[Path]:
    """Return the checkpoints that were made by steps or by epochs, oldest first."""
    matches = ((re.fullmatch(rf"lora-{unit}(\d+)\.safetensors", path.name), path) for path in folder.glob("lora-*"))
    return [path for _, path in sorted((int(match[1]), path) for match, path in matches if match)]
