"""What a sample says about itself: every latents file, video and image carries how it was made."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from hv15 import __version__
from hv15.sample.prompts import SampleSpec

if TYPE_CHECKING:
    from hv15.sample.loras import WeightedLoRA

SAMPLE, LORAS, VERSION = "hv15.sample", "hv15.loras", "hv15.version"


def provenance(spec: SampleSpec, loras: Iterable[WeightedLoRA]) -> dict[str, str]:
    """Return metadata from which the sample can be made again; no clock time, so equal runs give equal bytes.

    Raises:
        UserError: a LoRA is missing or not the planned one.
    """
    applied = [
        {"file": lora.path.name, "multiplier": lora.multiplier, "fingerprint": lora.fingerprint()} for lora in loras
    ]
    return {
        SAMPLE: spec.to_text(),
        LORAS: json.dumps(applied, ensure_ascii=False),
        VERSION: __version__,
    }
