"""Mappings whose order counts, such as patterns of which the first that matches is used.

They are dumped to JSON as a list of mappings of one entry each, because keys of mappings are sorted in digests. Both
forms are read.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BeforeValidator, GetJsonSchemaHandler, PlainSerializer
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from hv15.patterns import PatternError, compile_pattern

Value = TypeVar("Value")


def joined(value: object) -> object:
    """Return a list of mappings as one mapping."""
    if isinstance(value, list) and all(isinstance(each, dict) for each in value):
        return {key: entry for each in value for key, entry in each.items()}
    return value


def _one_by_one(value: dict[str, object]) -> list[dict[str, object]]:
    return [{key: entry} for key, entry in value.items()]


class _BothForms:
    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        mapping = handler(core_schema)
        return {"anyOf": [mapping, {"type": "array", "items": {**mapping}}]}


Ordered = Annotated[
    dict[str, Value], BeforeValidator(joined), PlainSerializer(_one_by_one, when_used="json"), _BothForms()
]
"""A mapping whose order is kept."""


def check_pattern(pattern: str) -> None:
    """Check that a text is a regular expression.

    Raises:
        ValueError: it is not.
    """
    try:
        compile_pattern(pattern)
    except PatternError as error:
        raise ValueError(f"{pattern!r:.200} is not a regular expression: {error}") from None
