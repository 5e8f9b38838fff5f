"""JSON values as types, and the reading of records that another process, or another version, wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""Any JSON value, as Python's json module gives it."""

JsonObject: TypeAlias = dict[str, Json]


class RecordError(ValueError):
    """A file is not the record that it should be: torn, of another kind, or of a version that is not understood."""


def parse_json(text: str | bytes) -> Json:
    """Return a JSON value of somebody's file.

    Raises:
        RecordError: the text is not JSON, or nested too deep.
    """
    try:
        value: Json = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"not JSON: {error}") from error
    return value


def parse_object(text: str | bytes) -> JsonObject:
    """Return a JSON object.

    Raises:
        RecordError: the text is not JSON, or not an object.
    """
    value = parse_json(text)
    if not isinstance(value, dict):
        raise RecordError(f"expected a JSON object, found {type(value).__name__}")
    return value


def read_record(path: Path, version: int) -> JsonObject:
    """Read a JSON object whose `version` is the given one; unknown fields are the caller's to pass over.

    Raises:
        RecordError: the file cannot be read, is torn, or has another version; the message names both versions.
    """
    try:
        content = parse_object(path.read_bytes())
    except OSError as error:
        raise RecordError(f"cannot be read: {error.strerror or error}") from error
    if content.get("version") != version:
        raise RecordError(f"is of version {content.get('version')}, this hv15 understands version {version}")
    return content


def as_object(value: Json) -> JsonObject:
    """Return a value that must be an object.

    Raises:
        RecordError: it is none.
    """
    if not isinstance(value, dict):
        raise RecordError(f"expected an object, found {value!r:.60}")
    return value


def as_text(value: Json) -> str:
    """Return a value that must be text.

    Raises:
        RecordError: it is none.
    """
    if not isinstance(value, str):
        raise RecordError(f"expected text, found {value!r:.60}")
    return value


def text_of(content: Mapping[str, Json], name: str) -> str:
    """Return a text field; "" when it is missing or of another type."""
    value = content.get(name)
    return value if isinstance(value, str) else ""
