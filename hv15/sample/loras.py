"""The LoRAs that are applied to a sample."""

from __future__ import annotations

from pathlib import Path

from hv15.lora.weighted import WeightedLoRA
from hv15.sample.prompts import SampleSpec


def loras_of(spec: SampleSpec, root: Path, trained: Path | None) -> list[WeightedLoRA]:
    """Return a sample's LoRAs in the order in which they are applied: the trained one, then those of the config."""
    loras = [WeightedLoRA(root / each.path, each.multiplier, each.fingerprint) for each in spec.loras]
    if trained is not None and spec.lora_multiplier is not None:
        loras.insert(0, WeightedLoRA(trained, spec.lora_multiplier))
    return loras
