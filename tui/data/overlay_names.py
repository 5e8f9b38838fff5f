"""What trainings that are drawn over one another are called: by the settings that differ among them."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from hv15.config.fields import affects
from hv15.config.section import Affects
from hv15.config.train import TrainSettings
from hv15.records.json_values import Json, JsonObject
from hv15.records.training import TrainingRecord
from hv15.runs.metrics import record_of
from hv15.terminal_text import visible

SECTIONS = ("task", "models", "datasets", "train")
"""Of the config: those on which a LoRA depends."""
OF_NO_MATTER = (Affects.SPEED, Affects.WATCHING, Affects.PLACE, Affects.SAMPLING, Affects.APART)
LONGEST = 24
"""Characters of a value that are shown."""
CLIPS = "clips"
"""Stands for what the datasets hold."""

Key = TypeVar("Key", bound=Hashable)


def overlay_names(trainings: Mapping[str, Path]) -> dict[str, str]:
    """Return what distinguishes each training from the others, by label; none for one whose settings are not known.

    Args:
        trainings: the metrics files.
    """
    records = {label: record_of(path) for label, path in trainings.items()}
    return names_by_settings({label: settings_of(each) for label, each in records.items() if each is not None})


def settings_of(record: TrainingRecord) -> JsonObject:
    """Return the settings that change the LoRA, by dotted name, and what stands for the content of its datasets."""
    found = dict(_flat({name: record.config.get(name) for name in SECTIONS}, ""))
    found = {name: value for name, value in found.items() if _matters(name)}
    dataset = record.past.get("dataset")
    if isinstance(dataset, dict):
        found[CLIPS] = f"{dataset.get('size')} ({str(dataset.get('digest'))[:6]})"
    return found


def names_by_settings(settings: Mapping[Key, JsonObject]) -> dict[Key, str]:
    """Return for each training its values of the settings that differ, as `learning_rate 0.0001, network_dim 8`."""
    every = dict.fromkeys(name for each in settings.values() for name in each)
    differing = [name for name in every if len({_text(each.get(name)) for each in settings.values()}) > 1]
    return {
        key: ", ".join(f"{name.removeprefix('train.')} {_text(each.get(name))}" for name in differing)
        for key, each in settings.items()
    }


def _flat(content: JsonObject, at: str) -> Iterator[tuple[str, Json]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{at}{name}.")
        else:
            yield f"{at}{name}", value


def _matters(name: str) -> bool:
    section, _, field = name.partition(".")
    return section != "train" or affects(TrainSettings, field.partition(".")[0]) not in OF_NO_MATTER


def _text(value: Json) -> str:
    if value is None:
        return "not set"
    text = visible(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
