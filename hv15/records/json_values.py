"""Types of JSON values, and functions to read records that another process or version wrote."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""Any JSON value, as Python's json module returns it."""

JsonObject: TypeAlias = dict[str, Json]


class RecordError(ValueError):
    """A file is not the expected record: it is damaged, of another kind, or of an unsupported version."""


LARGEST_REPORT = 2**22
"""Bytes of a self-test's report or of a file of rates at most; a report takes some ten thousand."""


def report_content(path: Path, *, follow_link: bool) -> bytes:
    """Return the bytes of a report, or of a file of rates. A pipe or a device is not waited for.

    Raises:
        OSError: it cannot be read.
        RecordError: it is no regular file, is too large, or is a link and none is followed.
    """
    only_itself = 0 if follow_link else os.O_NOFOLLOW
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | only_itself)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow_link:
            raise RecordError("it is a link, which is not followed") from None
        raise
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise RecordError("not a regular file")
        content = file.read(LARGEST_REPORT + 1)
    if len(content) > LARGEST_REPORT:
        raise RecordError("it is too large for rates or a report")
    return content


def parse_json(text: str | bytes) -> Json:
    """Return a JSON value of somebody's file.

    Raises:
        RecordError: the text is not JSON, or nested too deep.
    """
    try:
        value: Json = json.loads(text)
    except RecursionError as error:
        raise RecordError("JSON that is nested too deep") from error
    except ValueError as error:
        raise RecordError(f"not JSON: {error}") from error
    return value


def parse_object(text: str | bytes) -> JsonObject:
    """Parse a JSON object.

    Raises:
        RecordError: the text is not JSON, or not an object.
    """
    value = parse_json(text)
    if not isinstance(value, dict):
        raise RecordError(f"expected a JSON object, found {type(value).__name__}")
    return value


def read_record(path: Path, version: int) -> JsonObject:
    """Read a JSON object whose `version` must be this one; the caller should ignore unknown fields.

    Raises:
        RecordError: the file cannot be read, is damaged, or has another version; the message names both versions.
    """
    try:
        content = parse_object(path.read_bytes())
    except OSError as error:
        raise RecordError(f"cannot be read: {error.strerror or error}") from error
    if content.get("version") != version:
        raise RecordError(f"is of version {content.get('version')}, but this hv15 understands only version {version}")
    return content


def as_object(value: Json) -> JsonObject:
    """Return a value that must be an object.

    Raises:
        RecordError: it is not an object.
    """
    if not isinstance(value, dict):
        raise RecordError(f"expected an object, found {value!r:.60}")
    return value


def as_text(value: Json) -> str:
    """Return a value that must be text.

    Raises:
        RecordError: it is not text.
    """
    if not isinstance(value, str):
        raise RecordError(f"expected text, found {value!r:.60}")
    return value


def text_of(content: Mapping[str, Json], name: str) -> str:
    """Return a text field; "" if it is missing or of another type."""
    value = content.get(name)
    return value if isinstance(value, str) else ""
