"""Whether LoRA files are of one training, as far as they tell; a training may have been continued by others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hv15.errors import UserError
from hv15.models.weights.header import read_header
from hv15.train.segments import trainings_of_lora
from hv15.workflow.differences import differences

_NAMES = {
    "format": "hv15 trained in another way.",
    "dit": "another transformer.",
    "dataset": "another dataset.",
    "latents": "clips were encoded in another way.",
    "text": "captions were encoded in another way.",
    "masks": "masks were encoded in another way.",
    "train.network_weights": "another train.network_weights.",
    "train.base_weights": "other train.base_weights.",
    "train.continue_from": "another start.",
}
_MOST_NAMED = 3


def refuse_other_trainings(files: Sequence[Path]) -> None:
    """Check that files are of one training, or of trainings that continued one another. One that does not tell passes.

    Raises:
        UserError: a file cannot be read, or is known to be of another training than the last.
    """
    told = {path: trainings_of_lora(read_header(path).metadata) for path in files}
    told = {path: trainings for path, trainings in told.items() if trainings}
    if not told:
        return
    last = max(told, key=lambda path: len(told[path]))
    for path, trainings in told.items():
        if trainings[-1] in told[last]:
            continue
        changes = list(differences(told[last][-1], trainings[-1], _NAMES))
        more = f" and {len(changes) - _MOST_NAMED} more" if len(changes) > _MOST_NAMED else ""
        raise UserError.at(
            path,
            f"is of another training than {last}: {'; '.join(changes[:_MOST_NAMED])}{more}",
            hint="average only files of one training",
        )
