"""The JSON schema of config.yaml, with which editors complete and check it. The models check more than the schema."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from hv15.config.fields import own_fields, section_of
from hv15.config.section import Affects, Section
from hv15.config.settings import Settings
from hv15.records.json_values import Json, JsonObject, as_object


def json_schema() -> JsonObject:
    """Return the JSON schema (draft 2020-12) of config.yaml.

    The description of each setting is its help, and what an edit of it does to a training.
    """
    schema = as_object(_tidy(Settings.model_json_schema()))
    definitions = as_object(schema["$defs"])
    for (section, name), words in _effects().items():
        model = schema if section == Settings.__name__ else as_object(definitions[section])
        described = as_object(as_object(model["properties"])[name])
        described["description"] = f"{described['description']} {words[0].upper()}{words[1:]}."
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "hv15 config.yaml"}


def _effects() -> dict[tuple[str, str], str]:
    """What an edit does to a training, by section and setting, where it is the same wherever the section is used."""
    found = defaultdict[tuple[str, str], set[str]](set)
    for section, name, words in _uses(Settings, None):
        found[section, name].add(words)
    return {place: words for place, uses in found.items() if len(uses) == 1 and (words := next(iter(uses)))}


def _uses(model: type[Section], mark: Affects | None) -> Iterator[tuple[str, str, str]]:
    for info in own_fields(model, mark=mark):
        yield model.__name__, info.path, info.after_edit
        below = section_of(model.model_fields[info.path].annotation)
        if below is not None:
            yield from _uses(below, info.mark_below)


def _tidy(schema: Json) -> Json:
    """Remove titles, which only repeat keys, and join the lines of help texts."""
    if isinstance(schema, list):
        return [_tidy(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    tidy = {key: _tidy(value) for key, value in schema.items() if key != "title" or not isinstance(value, str)}
    if isinstance(text := tidy.get("description"), str):
        tidy["description"] = " ".join(text.split())
    return tidy
