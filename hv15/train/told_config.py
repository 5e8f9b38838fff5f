"""The config that a LoRA tells: all that the LoRA follows from, so that it can be made again.

What is only seen and kept of a training while it runs (previews, copies, measurements, logs) is left out. So a LoRA is
the same file with and without it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from hv15.config.cache import CacheSettings
from hv15.config.fields import affects
from hv15.config.runtime import RuntimeSettings
from hv15.config.section import Affects, Section
from hv15.config.train import TrainSettings
from hv15.config.training.validation import ValidationSettings
from hv15.records.json_values import Json, JsonObject
from hv15.train.origin import ENTRY, Origin

_UNTOLD = {Affects.WATCHING, Affects.PUBLISHING}


def told_config(config: Mapping[str, Json], made_from: Mapping[str, Json], end: int | None = None) -> JsonObject:
    """Return what a LoRA tells of the config of its training.

    Args:
        config: the whole config, as JSON.
        made_from: the spec of the training, or its past.
        end: the step after which another training continued it; None for the last training.
    """
    told = dict(config)
    if "runtime" in config:
        told["runtime"] = _without(config["runtime"], RuntimeSettings, _UNTOLD)
    if "cache" in config:
        told["cache"] = _without(config["cache"], CacheSettings, _UNTOLD)
    train = _without(config.get("train"), TrainSettings, _UNTOLD)
    if not isinstance(train, dict):
        return told
    origin = Origin.of_spec(made_from)
    if origin is not None and origin.kind == "state":
        train[ENTRY] = origin.digest  # `latest` is another one by now
    validation = train.get("validation")
    if isinstance(validation, dict):
        measures = validation.get("patience") is not None  # then the length depends on it
        untold = _UNTOLD if measures else _UNTOLD | {Affects.MEASURING}
        train["validation"] = _without(validation, ValidationSettings, untold)
    if end is not None and not _has_its_length(made_from):
        train |= {"max_train_steps": end, "max_train_epochs": None}
    return {**told, "train": train}


def _without(section: Json, model: type[Section], marks: Collection[Affects]) -> Json:
    """A section without the settings that have one of these marks."""
    if not isinstance(section, dict):
        return section
    known = model.model_fields
    return {name: value for name, value in section.items() if name not in known or affects(model, name) not in marks}


def _has_its_length(past: Mapping[str, Json]) -> bool:
    """Whether the length of a training is of its past, because its learning rate depends on it."""
    train = past.get("train")
    return isinstance(train, dict) and any(
        affects(TrainSettings, name) == Affects.LENGTH for name in train if name in TrainSettings.model_fields
    )
