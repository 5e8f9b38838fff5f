"""Converts frozen dataclasses to JSON and back, according to the types of their fields.

A reader ignores unknown fields, and a missing field has its default if that is a constant, so a record may get a new
field without a new version. Supported types are text, numbers, booleans, paths, enums and literals of text, tuples of
one type, dicts from text to one type, nested records, unions of these, and None.
"""

from __future__ import annotations

import time
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from hv15.records.json_values import Json, JsonObject, RecordError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Record = TypeVar("Record", bound=DataclassInstance)
else:
    Record = TypeVar("Record")

Reader = Callable[[Json], object]


def now() -> float:
    """Return the seconds since 1970, rounded to milliseconds."""
    return round(time.time(), 3)


class NewerVersion(RecordError):  # noqa: N818
    """A record was written by a later hv15, for which it has another meaning."""


def check_version(version: object, understood: int) -> None:
    """Check that this hv15 understands the version of a record.

    Raises:
        NewerVersion: it is a later version.
        RecordError: it is not a version.
    """
    if not isinstance(version, int) or isinstance(version, bool):
        raise RecordError(f"version: expected a whole number, found {version!r:.60}")
    if version > understood:
        raise NewerVersion(f"is of version {version}, but this hv15 understands only versions up to {understood}")


def to_json(record: DataclassInstance) -> JsonObject:
    """Return a record's fields as JSON values."""
    return {each.name: _json(getattr(record, each.name)) for each in fields(record)}


def _json(value: object) -> Json:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_json(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _json(item) for name, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return to_json(value)
    raise TypeError(f"not a value of a record: {value!r}")


def from_json(kind: type[Record], content: Mapping[str, Json], *, absent: float | None = None) -> Record:
    """Make a record from a JSON object.

    Args:
        absent: the value of a missing float field, which an older version did not write; None means an error.

    Raises:
        RecordError: a field is missing, or its value is not of its type.
    """
    values: dict[str, object] = {}
    for name, (read, required, is_number) in _readers(kind).items():
        if name in content:
            try:
                values[name] = read(content[name])
            except RecordError as error:
                raise RecordError(f"{name}: {error}") from None
        elif required and is_number and absent is not None:
            values[name] = absent
        elif required:
            raise RecordError(f"{name} is missing")
    return kind(**values)


@cache
def _readers(kind: type[DataclassInstance]) -> dict[str, tuple[Reader, bool, bool]]:
    """Return, for each field, its reader, whether it is required, and whether it is a float, or None."""
    hints = get_type_hints(kind)
    return {
        each.name: (
            _reader(hints[each.name]),
            each.default is MISSING and each.default_factory is MISSING,
            hints[each.name] in (float, float | None),
        )
        for each in fields(kind)
        if each.init
    }


def _reader(hint: object) -> Reader:
    """Return the function that converts a JSON value to a value of a type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _reader(arguments[0])
    if origin in (Union, types.UnionType):
        readers = tuple(_reader(argument) for argument in arguments if argument is not type(None))
        read = readers[0] if len(readers) == 1 else partial(_either, readers)
        return partial(_optional, read) if type(None) in arguments else read
    if origin is Literal:
        return partial(_choice, arguments)
    if origin is tuple:
        return partial(_items, _reader(arguments[0]))
    if origin is dict:
        return partial(_mapping, _reader(arguments[1]))
    if isinstance(hint, type) and is_dataclass(hint):
        return partial(_record, hint)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return partial(_member, hint)
    return _PLAIN[hint]


def _optional(read: Reader, value: Json) -> object:
    return None if value is None else read(value)


def _either(readers: tuple[Reader, ...], value: Json) -> object:
    errors = []
    for read in readers:
        try:
            return read(value)
        except RecordError as error:
            errors.append(str(error))
    raise RecordError("; or ".join(errors))


def _choice(choices: tuple[str, ...], value: Json) -> object:
    if value not in choices:
        raise _unexpected(f"one of {', '.join(choices)}", value)
    return value


def _items(read: Reader, value: Json) -> object:
    if not isinstance(value, list):
        raise _unexpected("a list", value)
    return tuple([read(item) for item in value])


def _mapping(read: Reader, value: Json) -> object:
    if not isinstance(value, dict):
        raise _unexpected("an object", value)
    return {name: read(item) for name, item in value.items()}


def _record(kind: type[DataclassInstance], value: Json) -> object:
    if not isinstance(value, dict):
        raise _unexpected("an object", value)
    return from_json(kind, value)


def _member(kind: type[StrEnum], value: Json) -> object:
    found = next((each for each in kind if each == value), None)
    if found is None:
        raise _unexpected(f"one of {', '.join(kind)}", value)
    return found


def _text(value: Json) -> object:
    if not isinstance(value, str):
        raise _unexpected("text", value)
    return value


def _boolean(value: Json) -> object:
    if not isinstance(value, bool):
        raise _unexpected("true or false", value)
    return value


def _whole(value: Json) -> object:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _unexpected("a whole number", value)
    return value


def _number(value: Json) -> object:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _unexpected("a number", value)
    try:
        return float(value)
    except OverflowError:
        raise _unexpected("a smaller number", "a number of hundreds of digits") from None


def _path(value: Json) -> object:
    if not isinstance(value, str):
        raise _unexpected("a path", value)
    return Path(value)


_PLAIN: dict[object, Reader] = {str: _text, bool: _boolean, int: _whole, float: _number, Path: _path}


def _unexpected(wanted: str, found: Json) -> RecordError:
    return RecordError(f"expected {wanted}, found {found!r:.60}")
