"""The results of `hv15 check`: for each thing that it checks, the problem and its location."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from hv15.records.fields import check_version, from_json, to_json
from hv15.records.json_values import JsonObject
from hv15.records.problems import NOWHERE, ConfigError, Place
from hv15.terminal_text import one_line

VERSION = 1
"""Increased when the meaning of a field changes."""

CheckState = Literal["ok", "note", "problem"]
"""Correct; worth knowing; must be fixed before a run."""


@dataclass(frozen=True)
class Check:
    """The result for one thing that was checked."""

    state: CheckState
    subject: str
    """What was checked, in a word or two: `dit`, `dataset`, `disk`."""
    message: str
    """What was found, without the file, which is in `place`."""
    hint: str = ""
    """What to do."""
    place: Place = NOWHERE

    @property
    def text(self) -> str:
        """Everything but the subject, for a person: the file, what was found and, on its own line, what to do."""
        where = "" if self.place.file is None else f"{self.place}: "
        return one_line(f"{where}{self.message}") + (f"\nhint: {one_line(self.hint)}" if self.hint else "")


def problem_checks(error: ConfigError, subject: str = "config") -> tuple[Check, ...]:
    """Return the problems of a config, or of files that it names, as checks."""
    return tuple(Check("problem", subject, each.message, each.hint, each.place) for each in error.problems)


@dataclass(frozen=True)
class _Checks:
    """The printed JSON object."""

    checks: tuple[Check, ...]
    version: int = VERSION


def checks_json(checks: Iterable[Check]) -> JsonObject:
    """Return checks as JSON, which `read_checks` reads."""
    return to_json(_Checks(tuple(checks)))


def read_checks(content: JsonObject) -> tuple[Check, ...]:
    """Read the output of `hv15 check --json`.

    Raises:
        RecordError: it is not a record of checks, or is of a newer version.
    """
    check_version(content.get("version"), VERSION)
    return from_json(_Checks, content).checks
