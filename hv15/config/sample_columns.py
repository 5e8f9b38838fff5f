"""The columns of a project's samples: what differs between those that begin from the same noise."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hv15.config.loras import SampledLoraSettings
from hv15.config.sample import SampleSettings

STRENGTH_SUFFIX, LORA_SUFFIX = ".x", ".with-"
"""Stand before the strength, and before the LoRA, in the name of a sample; a prompt's own name has no dot."""
NO_LORA = "no LoRA"
"""The title of a column of samples that no LoRA takes part in."""
_THIS = "this LoRA"
COMMON = "without"
"""The title of the column beside those of `compare`, where there are other LoRAs, but none is trained."""


@dataclass(frozen=True)
class SampleColumn:
    """One of the samples that are made of each prompt and seed."""

    suffix: str = ""
    """What its name ends in."""
    label: str = ""
    """What stands over it on the sheet; "" where there is only one."""
    strength: float = 1.0
    """Factor for the strength of `lora` or, without it, of all that the sample has."""
    lora: SampledLoraSettings | None = None
    """The LoRA that is used instead of the trained one."""


def columns_of(sample: SampleSettings, *, trains: bool) -> list[SampleColumn]:
    """Return the columns that `sample.strengths` and `sample.compare` ask for: one, if they ask for nothing.

    Args:
        trains: whether there is a trained LoRA, which all samples have that compare no other.
    """
    has_loras = trains or bool(sample.loras) or any(prompt.loras for prompt in sample.prompts)
    title = _THIS if trains else COMMON if has_loras else NO_LORA
    columns = []
    for strength in (sample.strengths if has_loras else ()) or (1.0,):
        suffix = f"{STRENGTH_SUFFIX}{strength:g}" if has_loras and sample.strengths else ""
        label = (
            f"strength {strength:g}"
            if suffix and not sample.compare
            else f"{title} x {strength:g}"
            if suffix
            else title
        )
        columns.append(SampleColumn(suffix, label if strength else NO_LORA, strength))
    for lora in sample.compare:
        name = file_label(lora)
        for strength in [each for each in sample.strengths if each] or [1.0]:
            factor = f"{STRENGTH_SUFFIX}{strength:g}" if sample.strengths else ""
            label = f"{Path(lora.path).stem} x {strength:g}" if factor else Path(lora.path).stem
            columns.append(SampleColumn(f"{LORA_SUFFIX}{name}{factor}", label, strength, lora))
    return columns


def row_name(sample: str) -> str:
    """Return the name of a sample's prompt and seed, without that of its column."""
    return sample.partition(LORA_SUFFIX)[0].partition(STRENGTH_SUFFIX)[0]


def column_name(sample: str) -> str:
    """Return what a sample's name says of its column, such as `x0.5`; "" where nothing is compared."""
    return sample.removeprefix(row_name(sample)).lstrip(".")


def file_label(lora: SampledLoraSettings) -> str:
    """Return the letters of a LoRA's file name that any file name may have."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", Path(lora.path).stem).strip("-")[:40] or "lora"
