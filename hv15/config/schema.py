"""The JSON schema of config.yaml, with which editors complete and check it. The models check more than the schema."""

from __future__ import annotations

from hv15.config.settings import Settings
from hv15.records.json_values import Json, JsonObject, as_object


def json_schema() -> JsonObject:
    """Return the JSON schema (draft 2020-12) of config.yaml, with each setting's help as its description."""
    schema = as_object(_tidy(Settings.model_json_schema()))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "hv15 config.yaml"}


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
