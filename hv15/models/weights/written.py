"""A model's sizes in a config.json or a file's metadata. Other programs write these, so every value is checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from hv15.errors import UserError
from hv15.records.json_values import Json, JsonObject, RecordError, parse_object

T = TypeVar("T")


@dataclass(frozen=True)
class WrittenSizes:
    """A JSON object with sizes. A size that is missing or null has the default.

    The methods that read a value raise UserError if it has another type; the message names the file.
    """

    content: JsonObject
    where: str
    """The file, for messages."""

    def part(self, name: str) -> WrittenSizes:
        """Return the object of this name inside it; itself if there is none."""
        inner = self.content.get(name)
        return WrittenSizes(inner, self.where) if isinstance(inner, dict) and inner else self

    def with_default(self, other: WrittenSizes) -> WrittenSizes:
        """Return the union of both; this one takes precedence."""
        return WrittenSizes({**other.content, **self.content}, self.where)

    def integer(self, name: str, default: T) -> int | T:
        """Return a whole number."""
        value = self.content.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(name, value, "a whole number")
        return value

    def number(self, name: str, default: float) -> float:
        """Return a number."""
        value = self.content.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(name, value, "a number")
        return float(value)

    def integers(self, name: str, default: T) -> tuple[int, ...] | T:
        """Return a list of whole numbers."""
        value = self.content.get(name)
        if value is None:
            return default
        entries = value if isinstance(value, list) else [None]
        whole = tuple(entry for entry in entries if isinstance(entry, int) and not isinstance(entry, bool))
        if len(whole) != len(entries):
            raise self._wrong(name, value, "a list of whole numbers")
        return whole

    def _wrong(self, name: str, value: Json, expected: str) -> UserError:
        return UserError.at(
            self.where,
            f"{name} in its metadata or config.json is {value!r:.60}, expected {expected}",
            hint="correct it, or copy or download the model again",
        )


def sizes_in_text(text: str, where: str) -> WrittenSizes:
    """Return the sizes in a JSON text.

    Raises:
        UserError: it is not a JSON object.
    """
    try:
        return WrittenSizes(parse_object(text), where)
    except RecordError as error:
        raise UserError.at(
            where, f"the sizes in its metadata cannot be read: {error}", hint="copy or download it again"
        ) from error
