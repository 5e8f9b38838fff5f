"""What `hv15 check` finds: each thing that it looks at, with what is wrong and where."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from hv15.records.json_values import Json, JsonObject, RecordError, as_object, as_text, text_of
from hv15.records.problems import NOWHERE, ConfigError, Location, Place

VERSION = 1

CheckState = Literal["ok", "note", "problem"]
"""In place; worth a thought; to be put right before a run."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    state: CheckState
    subject: str
    """What it is about, in a word or two: `dit`, `dataset`, `disk`."""
    message: str
    """What was found. The file of `place` is not in it."""
    hint: str = ""
    """What to do."""
    place: Place = NOWHERE

    @property
    def text(self) -> str:
        """All but the subject, for a person: the file, what was found, and what to do in a line of its own."""
        where = "" if self.place.file is None else f"{self.place}: "
        return f"{where}{self.message}" + (f"\nhint: {self.hint}" if self.hint else "")


def problem_checks(error: ConfigError, subject: str = "config") -> tuple[Check, ...]:
    """Return the problems of a config, or of what it names, as checks."""
    return tuple(Check("problem", subject, each.message, each.hint, each.place) for each in error.problems)


def to_json(checks: Iterable[Check]) -> JsonObject:
    """Return checks as JSON; `from_json` gives them back."""
    return {"version": VERSION, "checks": [_check_json(each) for each in checks]}


def from_json(content: Mapping[str, Json]) -> tuple[Check, ...]:
    """Read what `to_json` gave; fields that are not known are passed over.

    Raises:
        RecordError: it is of another version, or not checks.
    """
    if content.get("version") != VERSION:
        raise RecordError(f"is of version {content.get('version')}, this hv15 understands version {VERSION}")
    checks = content.get("checks")
    if not isinstance(checks, list):
        raise RecordError("holds no checks")
    return tuple(_check(as_object(each)) for each in checks)


def _check_json(check: Check) -> JsonObject:
    place = check.place
    return {
        "state": check.state,
        "subject": check.subject,
        "message": check.message,
        "hint": check.hint,
        "place": {
            "file": None if place.file is None else str(place.file),
            "line": place.line,
            "column": place.column,
            "setting": list(place.setting),
        },
    }


def _check(content: JsonObject) -> Check:
    state = content.get("state")
    known = next((each for each in get_args(CheckState) if each == state), None)
    if known is None:
        raise RecordError(f"expected a state of {', '.join(get_args(CheckState))}, found {state!r:.60}")
    return Check(
        known,
        as_text(content.get("subject")),
        as_text(content.get("message")),
        text_of(content, "hint"),
        _place(as_object(content.get("place", {}))),
    )


def _place(content: JsonObject) -> Place:
    file = text_of(content, "file")
    return Place(
        Path(file) if file else None,
        _whole(content.get("line")),
        _whole(content.get("column")),
        _location(content.get("setting", [])),
    )


def _location(value: Json) -> Location:
    if not isinstance(value, list):
        raise RecordError(f"expected a list of names and numbers, found {value!r:.60}")
    location: list[str | int] = []
    for part in value:
        if not isinstance(part, str | int) or isinstance(part, bool):
            raise RecordError(f"expected a name or a number, found {part!r:.60}")
        location.append(part)
    return tuple(location)


def _whole(value: Json) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise RecordError(f"expected a whole number, found {value!r:.60}")
    return value
