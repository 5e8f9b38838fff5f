"""The LoRAs that are applied to a sample."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hv15.lora.outline import changed_layers
from hv15.lora.weighted import WeightedLoRA, naming
from hv15.sample.prompts import SampleSpec


def loras_of(spec: SampleSpec, root: Path, trained: Path | None) -> list[WeightedLoRA]:
    """Return a sample's LoRAs in the order in which they are applied: the trained one, then those of the config."""
    loras = [WeightedLoRA(root / each.path, each.multiplier, each.fingerprint, each.reach) for each in spec.loras]
    if trained is not None and spec.lora_multiplier is not None:
        loras.insert(0, WeightedLoRA(trained, spec.lora_multiplier))
    return loras


def check_reaches(loras: Iterable[WeightedLoRA]) -> None:
    """Check, before a model is loaded, that each LoRA has layers where it is to act.

    Raises:
        UserError: a pattern or a range of blocks names none of its layers, or the file cannot be used.
    """
    for lora in dict.fromkeys(loras):
        layers = changed_layers(lora.path)
        with naming(lora.path):
            lora.reach.layers(layers)
