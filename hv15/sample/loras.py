"""Which LoRAs act on a sample: read, checked against the plan, put on the transformer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.errors import UserError
from hv15.lora import apply_lora, merge_patch, read_lora
from hv15.models.fingerprint import model_fingerprint
from hv15.sample.prompts import SampleSpec

if TYPE_CHECKING:
    from hv15.models import DiT
    from hv15.models.patches import Patch


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
    for lora in loras:
        if lora.multiplier != 0:
            state_dict, _ = read_lora(lora.path)
            with _naming(lora.path):
                apply_lora(dit, state_dict, lora.multiplier)


def merge_patches(loras: Iterable[WeightedLoRA]) -> list[Patch]:
    """What merges LoRAs into weights on their way from a file: see `hv15.models.dit_files.load_dit`.

    Raises:
        UserError: a file is unusable.
    """
    patches = []
    for lora in loras:
        if lora.multiplier != 0:
            state_dict, _ = read_lora(lora.path)
            with _naming(lora.path):
                patches.append(merge_patch(state_dict, lora.multiplier, name=str(lora.path)))
    return patches


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put a file's name before the message of an error."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error.message}", hint=error.hint) from error
