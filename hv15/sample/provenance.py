"""What a sample says about itself: every latents file, video and image carries how it was made."""

from __future__ import annotations

from collections.abc import Iterable

from hv15 import __version__
from hv15.lora.weighted import WeightedLoRA, listed
from hv15.sample.prompts import SampleSpec

SAMPLE, LORAS, VERSION = "hv15.sample", "hv15.loras", "hv15.version"


def provenance(spec: SampleSpec, loras: Iterable[WeightedLoRA]) -> dict[str, str]:
    """Return metadata from which the sample can be made again; no clock time, so equal runs give equal bytes.

    Raises:
        UserError: a LoRA is missing or not the planned one.
    """
    return {SAMPLE: spec.to_text(), LORAS: listed(loras), VERSION: __version__}
