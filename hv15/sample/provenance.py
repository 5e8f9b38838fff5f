"""What a sample says about itself: every latents file, video and image carries how it was made."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from hv15 import __version__
from hv15.models.fingerprint import model_fingerprint
from hv15.sample.prompts import SampleSpec

if TYPE_CHECKING:
    from hv15.sample.loras import WeightedLoRA

SAMPLE, LORAS, VERSION = "hv15.sample", "hv15.loras", "hv15.version"
MERGED, BASE = "hv15.merged", "hv15.merged.base"
"""Of a checkpoint: the LoRAs merged into it, and the checkpoint that they were merged into."""


def provenance(spec: SampleSpec, loras: Iterable[WeightedLoRA]) -> dict[str, str]:
    """Return metadata from which the sample can be made again; no clock time, so equal runs give equal bytes.

    Raises:
        UserError: a LoRA is missing or not the planned one.
    """
    return {SAMPLE: spec.to_text(), LORAS: _listed(loras), VERSION: __version__}


def merge_provenance(base: Path, loras: Iterable[WeightedLoRA]) -> dict[str, str]:
    """Return metadata from which a merged checkpoint can be made again.

    Raises:
        UserError: a file is missing, or a LoRA is not the planned one.
    """
    merged = _listed(loras)
    source = {"file": base.name, "fingerprint": model_fingerprint(base)}
    return {MERGED: merged, BASE: json.dumps(source, ensure_ascii=False), VERSION: __version__}


def _listed(loras: Iterable[WeightedLoRA]) -> str:
    applied = [
        {"file": lora.path.name, "multiplier": lora.multiplier, "fingerprint": lora.fingerprint()} for lora in loras
    ]
    return json.dumps(applied, ensure_ascii=False)
