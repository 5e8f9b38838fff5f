"""The segments of a LoRA that was trained by several trainings, each continuing the one before (`continue_from`).

Each is an object:

- from_step: the number of finished steps before it, in its own count
- origin: what it started from, as its spec names it (`hv15.train.origin`); absent for a new LoRA
- to_step, config, made_from: where it was left, its config, and the past of its spec. Only of earlier segments, so
  that each can be trained again; of the last one, the LoRA's other metadata tells this. The config ends where the
  segment was left, unless its learning rate depends on the length.

An origin that does not tell how it was trained, such as another program's LoRA, has no config.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hv15.config import TrainSettings
from hv15.models.weights.header import read_header
from hv15.records.json_values import Json, JsonObject, RecordError, as_object, parse_json, parse_object
from hv15.records.metadata import CONFIG, MADE_FROM, SEGMENTS, STEPS
from hv15.records.training import known_record
from hv15.train.origin import LORA, Origin
from hv15.train.past import past_of
from hv15.train.told_config import told_config

_OF_A_COPY = ("step", "save_precision")
"""What the spec of a copy that is published has besides the past of its training (`hv15.project.checkpoints`)."""


def earlier_segments(origin: Origin, kept: Path) -> tuple[JsonObject, ...]:
    """Return the segments before a training, from what its origin tells.

    Args:
        kept: the origin's folder, as `hv15.train.origin.keep_origin` returns it.

    Raises:
        UserError: its LoRA file is damaged.
    """
    if origin.kind == "lora":
        return segments_of_lora(read_header(kept / LORA).metadata)
    record = known_record(kept)
    if record is None:
        return ({"from_step": 0, "to_step": origin.step},)
    last = segment(Origin.of_spec(record.past))
    told = told_config(record.config, record.past, origin.step)
    return (*record.segments, {**last, "to_step": origin.step, "config": told, "made_from": record.past})


def segment(origin: Origin | None) -> JsonObject:
    """Return the segment of the training that is not finished."""
    if origin is None:
        return {"from_step": 0}
    return {"from_step": origin.step, "origin": origin.to_json()}


def segments_of_lora(metadata: Mapping[str, str]) -> tuple[JsonObject, ...]:
    """Return all segments of a LoRA, the last one with its config; empty if it was not trained by hv15."""
    config, made_from = _parsed(metadata.get(CONFIG)), _parsed(metadata.get(MADE_FROM))
    if not isinstance(config, dict) or not isinstance(made_from, dict):
        return ()
    found = _parsed(metadata.get(SEGMENTS))
    segments = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
    steps = metadata.get(STEPS, "")
    left: JsonObject = {"to_step": int(steps) if steps.isdecimal() else 0, "config": config, "made_from": made_from}
    *before, last = segments or [segment(None)]
    return (*before, {**last, **left})


def trainings_of_lora(metadata: Mapping[str, str]) -> tuple[JsonObject, ...]:
    """Return the pasts of the trainings that made a LoRA one after the other; empty if it does not tell.

    Those of copies of one training are equal, after whichever step they were kept.
    """
    pasts = [each.get("made_from") for each in segments_of_lora(metadata)]
    try:
        train = TrainSettings.model_validate(as_object(parse_object(metadata[CONFIG])["train"]))
        *before, own = (as_object(past) for past in pasts)
        known = past_of(train, {name: value for name, value in own.items() if name not in _OF_A_COPY})
    except (KeyError, ValueError):  # nothing, or what this version cannot read
        return ()
    return (*before, known)


def _parsed(text: str | None) -> Json:
    try:
        return None if text is None else parse_json(text)
    except RecordError:
        return None
