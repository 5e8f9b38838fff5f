"""Which LoRAs act on a sample: read, checked against the plan, put on the transformer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from hv15.errors import UserError
from hv15.lora import apply_lora, merge_lora, read_lora
from hv15.models.fingerprint import model_fingerprint
from hv15.sample.prompts import SampleSpec

if TYPE_CHECKING:
    from hv15.models import DiT


@dataclass(frozen=True)
class WeightedLoRA:
    """A LoRA file (any supported layout, LyCORIS included), how strongly it acts, and what it must be."""

    path: Path
    multiplier: float = 1.0
    planned: str | None = None
    """The fingerprint that a plan gave it; None takes the file as it is."""

    def fingerprint(self) -> str:
        """The fingerprint of the file.

        Raises:
            UserError: it is missing, or is not the file that the sample was planned with.
        """
        found = model_fingerprint(self.path)
        if self.planned is not None and found != self.planned:
            raise UserError(
                f"{self.path}: changed since the sample was planned", hint="run the same snakemake command again"
            )
        return found


def loras_of(spec: SampleSpec, root: Path, trained: Path | None) -> list[WeightedLoRA]:
    """The LoRAs of a sample in the order they are applied: the run's own, `trained`, then those of the config."""
    loras = [WeightedLoRA(root / each.path, each.multiplier, each.fingerprint) for each in spec.loras]
    if trained is not None and spec.lora_multiplier is not None:
        loras.insert(0, WeightedLoRA(trained, spec.lora_multiplier))
    return loras


def apply_all(dit: DiT, loras: Iterable[WeightedLoRA]) -> None:
    """Put LoRAs beside the weights, which stay as they are; a multiplier of 0 is exactly no LoRA.

    Raises:
        UserError: a file is unusable, or does not fit the model.
    """
    _each(dit, loras, apply_lora)


def merge_all(dit: DiT, loras: Iterable[WeightedLoRA]) -> None:
    """Add LoRAs to the weights themselves; raises as `apply_all`."""
    _each(dit, loras, merge_lora)


def _each(dit: DiT, loras: Iterable[WeightedLoRA], change: Callable[[DiT, Mapping[str, Tensor], float], int]) -> None:
    for lora in loras:
        if lora.multiplier == 0:
            continue
        state_dict, _ = read_lora(lora.path)
        try:
            change(dit, state_dict, lora.multiplier)
        except UserError as error:
            raise UserError(f"{lora.path}: {error.message}", hint=error.hint) from error
