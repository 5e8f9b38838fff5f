"""The JSON schema of config.yaml: editors complete and check by it. The models stay the truth; they check more."""

from __future__ import annotations

from typing import Any

from hv15.config.settings import Settings


def json_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of config.yaml, with each setting's help as its description."""
    schema = Settings.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_tidy(schema), "title": "hv15 config.yaml"}


def _tidy(schema: Any) -> Any:
    """Drop the titles that only repeat a key, and join the lines of a help text."""
    if isinstance(schema, list):
        return [_tidy(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    tidy = {key: _tidy(value) for key, value in schema.items() if key != "title" or not isinstance(value, str)}
    if isinstance(tidy.get("description"), str):
        tidy["description"] = " ".join(tidy["description"].split())
    return tidy
