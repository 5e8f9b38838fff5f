"""Provenance in metadata: each latents file, video and image says how it was made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from hv15 import __version__
from hv15.lora.weighted import WeightedLoRA, listed
from hv15.records.json_values import JsonObject, RecordError, parse_object
from hv15.records.metadata import LORAS, MADE_FROM, SAMPLE, VERSION
from hv15.sample.prompts import SampleSpec


def provenance(spec: SampleSpec, made_from: JsonObject, loras: Iterable[WeightedLoRA]) -> dict[str, str]:
    """Return metadata that says how to make the sample again. It has no times, so equal runs give equal bytes.

    Args:
        made_from: what the file depends on, from its spec.

    Raises:
        UserError: a LoRA is missing or is not the planned one.
    """
    return {SAMPLE: spec.to_text(), LORAS: listed(loras), VERSION: __version__, **made_from_metadata(made_from)}


def made_from_metadata(made_from: JsonObject) -> dict[str, str]:
    """Return the metadata entry that says what a product was made from."""
    return {MADE_FROM: json.dumps(made_from, sort_keys=True, ensure_ascii=False)}


def read_made_from(metadata: Mapping[str, str]) -> JsonObject | None:
    """Return what a product was made from, from its metadata; None if it does not say so."""
    try:
        return parse_object(metadata[MADE_FROM])
    except (KeyError, RecordError):
        return None
