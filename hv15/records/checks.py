"""What `hv15 check` finds: each thing that it looks at, with what is wrong and where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from hv15.records.fields import check_version, from_json, to_json
from hv15.records.json_values import JsonObject
from hv15.records.problems import NOWHERE, ConfigError, Place

VERSION = 1
"""Raised when a field gets another meaning."""

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


@dataclass(frozen=True)
class _Checks:
    """What is printed."""

    checks: tuple[Check, ...]
    version: int = VERSION


def checks_json(checks: Iterable[Check]) -> JsonObject:
    """Return checks as JSON; `read_checks` gives them back."""
    return to_json(_Checks(tuple(checks)))


def read_checks(content: JsonObject) -> tuple[Check, ...]:
    """Return what `hv15 check --json` says.

    Raises:
        RecordError: it is not what checks look like, or of a version that is not understood.
    """
    check_version(content.get("version"), VERSION)
    return from_json(_Checks, content).checks
