"""In which settings trainings differ, as their records tell them, and what they are called by these."""

from __future__ import annotations

import json
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from functools import cache
from typing import TypeVar

from hv15.config.fields import affects, section_of
from hv15.config.section import Affects, Section
from hv15.config.settings import Settings
from hv15.records.json_values import Json, JsonObject
from hv15.records.problems import Location, dotted
from hv15.records.training import TrainingRecord
from hv15.terminal_text import one_line

SEED = "train.seed"
"""Trainings that differ in this alone are repetitions of one experiment."""
CLIPS, BASE = "clips", "base model"
"""Stand for the content of the datasets, and of the transformer's file."""
UNSEEN = frozenset({Affects.WATCHING, Affects.PLACE, Affects.PUBLISHING, Affects.SAMPLING})
"""Marks of settings without an effect on any number of a training. (Files are compared by their content.)"""
OF_TRAINING = ("task", "cache", "datasets", "train", "runtime")
"""Sections on which a training depends, or its time and memory."""
LONGEST = 24
"""Characters of a value that are shown."""

Key = TypeVar("Key", bound=Hashable)


def recorded_settings(record: TrainingRecord, unseen: Collection[Affects] = UNSEEN) -> JsonObject:
    """Return the settings of a training by dotted name, and what stands for the content of its clips and its base.

    Args:
        unseen: marks of settings to leave out.
    """
    found = named_settings(record.config, OF_TRAINING, unseen)
    dataset, base = record.past.get("dataset"), record.past.get("dit")
    if isinstance(dataset, dict):
        found[CLIPS] = f"{dataset.get('size')} ({str(dataset.get('digest'))[:6]})"
    if isinstance(base, str):
        found[BASE] = base[:12]
    return found


def named_settings(config: JsonObject, sections: Collection[str], unseen: Collection[Affects] = UNSEEN) -> JsonObject:
    """Return the settings of some sections of a resolved config, by dotted name: `datasets[0].resolution`."""
    every = ((name, config.get(name)) for name in sections)
    values = (each for name, value in every for each in _values(value, (name,)))
    return {dotted(place): value for place, value in values if not marks_of(place) & set(unseen)}


def marks_of(place: Location) -> frozenset[Affects]:
    """Return the marks of a setting and of the sections that it is in."""
    return _marks_of(tuple(part for part in place if isinstance(part, str)))


@cache
def _marks_of(names: tuple[str, ...]) -> frozenset[Affects]:
    """The same, remembered, because a comparison of 100 experiments asks for the marks of each setting 100 times."""
    found: set[Affects] = set()
    model: type[Section] | None = Settings
    for part in names:
        if model is None or part not in model.model_fields:
            break
        mark = affects(model, part)
        found |= {mark} if mark is not None else set()
        model = section_of(model.model_fields[part].annotation)
    return frozenset(found)


def differing(settings: Sequence[Mapping[str, Json]]) -> list[str]:
    """Return the names of the settings that differ among trainings, in the order in which they first appear."""
    every = dict.fromkeys(name for each in settings for name in each)
    return [name for name in every if len({_comparable(each.get(name)) for each in settings}) > 1]


def names_by_settings(settings: Mapping[Key, Mapping[str, Json]]) -> dict[Key, str]:
    """Return for each training its values of the settings that differ, as `learning_rate 0.0001, network_dim 8`."""
    names = differing([*settings.values()])
    return {key: in_words({name: each.get(name) for name in names}) for key, each in settings.items()}


def in_words(settings: Mapping[str, Json]) -> str:
    """Return settings with their values in one line."""
    return ", ".join(f"{short_name(name)} {value_text(value)}" for name, value in settings.items())


def short_name(name: str) -> str:
    """Return a setting's name as it stands where there is little room."""
    return name.removeprefix("train.")


def value_text(value: Json) -> str:
    """Return a value in one line, cut if it is long, without anything that a terminal would obey."""
    if value is None:
        return "not set"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    text = one_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _comparable(value: Json) -> str:
    return json.dumps(value, sort_keys=True)


def _values(value: Json, place: Location) -> Iterator[tuple[Location, Json]]:
    if isinstance(value, dict):
        for name, below in value.items():
            yield from _values(below, (*place, name))
    elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
        for number, below in enumerate(value):
            yield from _values(below, (*place, number))
    else:
        yield place, value
