"""Writes the LoRA of a training, and beside it its moving average if there is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hv15.lora import LoRANetwork, save_lora
from hv15.records.metadata import EMA_DECAY
from hv15.records.paths import average_of
from hv15.train.moving_average import MovingAverage
from hv15.train.optimizer_state import averaged


@dataclass(frozen=True)
class LoRAWriter:
    """What a training has learned, as it is saved."""

    network: LoRANetwork
    optimizer: torch.optim.Optimizer
    average: MovingAverage | None
    metadata: Callable[[int], Mapping[str, str]]
    """Returns the metadata of the LoRA after so many steps."""
    dtype: torch.dtype

    def tensors(self) -> dict[str, Tensor]:
        """Return a copy of the LoRA as it is now: tensors of any shapes, with kohya's names."""
        with averaged(self.optimizer):
            return {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}

    def averages(self) -> dict[str, Tensor]:
        """Return the same of the moving average; the averaged tensors are not copied."""
        return self.tensors() | (self.average.state() if self.average is not None else {})

    def write(self, path: Path, step: int, more: Mapping[str, str] | None = None) -> list[Path]:
        """Write the LoRA after `step` steps, with more metadata, and return the files, the LoRA's last.

        Raises:
            UserError: the disk is full.
        """
        tensors, metadata, written = self.tensors(), {**self.metadata(step), **(more or {})}, [path]
        if self.average is not None:
            written.insert(0, average_of(path))
            decay = {EMA_DECAY: str(self.average.decay)}
            save_lora(written[0], self.averages(), {**metadata, **decay}, dtype=self.dtype)
        save_lora(path, tensors, metadata, dtype=self.dtype)
        return written
