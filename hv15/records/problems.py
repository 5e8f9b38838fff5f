"""Problems with their locations, and the error of a config, which lists all its problems."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hv15.errors import UserError
from hv15.terminal_text import one_line

Location = tuple[str | int, ...]
"""The location of a setting: ("datasets", 0, "resolution")."""

LONGEST = 200
"""Characters of a setting's name that are shown."""

COMMAND_LINE = Path("--config")
"""Stands for the file of a setting on the workflow's command line."""


def dotted(location: Location) -> str:
    """Return a location as users write it: train.learning_rate or datasets[0].target_frames[1]."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")


@dataclass(frozen=True)
class Place:
    """A location in a file, as far as it is known."""

    file: Path | None = None
    line: int | None = None
    """From 1."""
    column: int | None = None
    """From 1."""
    setting: Location = ()

    def __str__(self) -> str:
        """Such as config.yaml:24:17 train.learning_rate."""
        numbers = "".join(f":{number}" for number in (self.line, self.column) if number is not None)
        setting = dotted(self.setting)
        shown = setting if len(setting) <= LONGEST else f"{setting[:LONGEST]}..."
        return one_line(f"{self.file or ''}{numbers} {shown}".strip())


NOWHERE = Place()


@dataclass(frozen=True)
class Problem:
    """One thing to fix."""

    message: str
    """What was found and what was expected, without the place."""
    hint: str = ""
    """What to do."""
    place: Place = NOWHERE

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place != NOWHERE else self.message


class ConfigError(UserError):
    """A config that cannot be used, with all its problems in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        hints = dict.fromkeys(problem.hint for problem in self.problems if problem.hint)
        place = next((str(problem.place) for problem in self.problems if problem.place != NOWHERE), "")
        first, *others = map(str, self.problems)
        super().__init__(first, lines=others, hint="; ".join(hints), place=place)
