"""What a sample says about itself: every latents file, video and image carries how it was made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from hv15 import __version__
from hv15.lora.weighted import WeightedLoRA, listed
from hv15.records.json_values import JsonObject, RecordError, parse_object
from hv15.records.metadata import LORAS, MADE_FROM, SAMPLE, VERSION
from hv15.sample.prompts import SampleSpec


def provenance(spec: SampleSpec, made_from: JsonObject, loras: Iterable[WeightedLoRA]) -> dict[str, str]:
    """Return metadata from which the sample can be made again; no clock time, so equal runs give equal bytes.

    Args:
        made_from: what the file depends on, as its spec says.

    Raises:
        UserError: a LoRA is missing or not the planned one.
    """
    return {SAMPLE: spec.to_text(), LORAS: listed(loras), VERSION: __version__, **made_from_metadata(made_from)}


def made_from_metadata(made_from: JsonObject) -> dict[str, str]:
    """Return the metadata entry by which a product tells what it was made from."""
    return {MADE_FROM: json.dumps(made_from, sort_keys=True, ensure_ascii=False)}


def read_made_from(metadata: Mapping[str, str]) -> JsonObject | None:
    """Return what a product tells that it was made from; None if it does not."""
    try:
        return parse_object(metadata[MADE_FROM])
    except (KeyError, RecordError):
        return None
