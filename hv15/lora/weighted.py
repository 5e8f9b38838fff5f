"""LoRA files with their strengths, which are checked against a plan and applied to a transformer.

Loads torch only to apply them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.errors import UserError
from hv15.lora.reach import EVERYWHERE, Reach
from hv15.models.weights.fingerprint import model_fingerprint
from hv15.records.json_values import JsonObject

if TYPE_CHECKING:
    from hv15.lora.applied import AppliedLoRAs
    from hv15.models import DiT


@dataclass(frozen=True)
class WeightedLoRA:
    """A LoRA file (any supported layout, including LyCORIS), its strength, its planned content, and where it acts."""

    path: Path
    multiplier: float = 1.0
    planned: str | None = None
    """The fingerprint that the file had when the sample was planned; None accepts any content."""
    reach: Reach = EVERYWHERE

    def fingerprint(self) -> str:
        """Return the fingerprint of the file.

        Raises:
            UserError: it is missing, or is not the file that the sample was planned with.
        """
        found = model_fingerprint(self.path)
        if self.planned is not None and found != self.planned:
            raise UserError.at(self.path, "changed since the sample was planned", hint="start the run again")
        return found


def apply_all(dit: DiT, loras: Iterable[WeightedLoRA]) -> AppliedLoRAs:
    """Apply LoRAs to a transformer without changing its weights; a multiplier of 0 is exactly no LoRA.

    Returns:
        What changes their strengths from step to step, and removes them again.

    Raises:
        UserError: a file cannot be used, does not fit the model, or has none of the layers that a pattern or a range
            of blocks names; then none is applied.
    """
    from hv15.lora.applied import AppliedLoRAs
    from hv15.lora.changes import read_changes
    from hv15.lora.files import read_lora

    applied = AppliedLoRAs()
    try:
        for lora in loras:
            if lora.multiplier != 0:
                state_dict, _ = read_lora(lora.path)
                with naming(lora.path):
                    applied.add(dit, read_changes(state_dict), lora.multiplier, lora.reach)
    except UserError:
        applied.remove()
        raise
    return applied


def listed(loras: Iterable[WeightedLoRA]) -> str:
    """Return the JSON text that describes LoRAs in the metadata of the files made with them.

    Raises:
        UserError: a LoRA is missing, or is not the planned one.
    """
    applied: list[JsonObject] = [
        {
            "file": lora.path.name,
            "multiplier": lora.multiplier,
            "fingerprint": lora.fingerprint(),
            **lora.reach.to_json(),
        }
        for lora in loras
    ]
    return json.dumps(applied, ensure_ascii=False)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put a file's name before the message of a UserError that is raised inside.

    Raises:
        UserError: the one that was raised inside.
    """
    try:
        yield
    except UserError as error:
        raise UserError.at(path, error.message, hint=error.hint) from error
