"""What differs between two configs: their lines, and their settings.

`hv15.workflow.differences` compares specs instead: there a list is one value, and a field that is missing is null. In a
config, each dataset or prompt of a list has settings of its own, and a setting that is not set is not null.
"""

from __future__ import annotations

import difflib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeAlias

from hv15.config.yaml_file import read_yaml
from hv15.errors import UserError
from hv15.records.json_values import Json, JsonObject
from hv15.records.paths import CONFIG
from hv15.records.problems import Location, dotted

ABSENT = "not set"


@dataclass(frozen=True)
class DiffLine:
    """A line of a diff; `@` marks a gap, with the line numbers that follow."""

    sign: Literal[" ", "+", "-", "@"]
    text: str
    old_line: int | None
    new_line: int | None


@dataclass(frozen=True)
class Change:
    """A setting that differs, with both values as they would stand in YAML."""

    path: str
    old: str
    new: str


def text_diff(old: str, new: str, context: int = 3) -> list[DiffLine]:
    """Return the lines that differ, with some lines around them; [] when the texts are equal.

    Only a line feed ends a line. Any other difference at its end shows in its text.
    """
    before, after = _lines(old), _lines(new)
    lines: list[DiffLine] = []
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for number, group in enumerate(matcher.get_grouped_opcodes(context)):
        if number:
            lines.append(DiffLine("@", "", group[0][1] + 1, group[0][3] + 1))
        for kind, old_start, old_end, new_start, new_end in group:
            if kind == "equal":
                for offset, text in enumerate(before[old_start:old_end]):
                    lines.append(DiffLine(" ", text.rstrip("\r\n"), old_start + offset + 1, new_start + offset + 1))
                continue
            lines += [DiffLine("-", _with_end(before[row]), row + 1, None) for row in range(old_start, old_end)]
            lines += [DiffLine("+", _with_end(after[row]), None, row + 1) for row in range(new_start, new_end)]
    return lines


def _lines(text: str) -> list[str]:
    return list(io.StringIO(text, newline="\n"))


def _with_end(line: str) -> str:
    text = line.removesuffix("\n").replace("\r", "␍")
    return text if line.endswith("\n") else f"{text}  (no line feed)"


def setting_changes(old: str, new: str) -> list[Change]:
    """Return the settings whose values differ between two texts; [] when one of them cannot be read."""
    try:
        differences = _differences(_values(old), _values(new), ())
        return [Change(dotted(location), _value_text(a), _value_text(b)) for location, a, b in differences]
    except UserError:
        return []


@lru_cache(maxsize=4)  # in a history, each config is compared with the one before and the one after it
def _values(text: str) -> JsonObject:
    return read_yaml(Path(CONFIG), text).data


class _Absence(Enum):
    """Stands for a missing value, which is not the same as null."""

    ABSENT = "absent"


_ABSENT = _Absence.ABSENT
_Found: TypeAlias = "Json | _Absence"


def _value_text(value: _Found) -> str:
    return ABSENT if isinstance(value, _Absence) else _as_yaml(value)


def _as_yaml(value: Json) -> str:
    """Write a value in one line as it could appear in the file."""
    if value is None:
        return "null"
    if isinstance(value, str) and value and "\n" not in value:
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def _differences(old: _Found, new: _Found, at: Location) -> Iterator[tuple[Location, _Found, _Found]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _differences(old.get(key, _ABSENT), new.get(key, _ABSENT), (*at, key))
    elif isinstance(old, list) and isinstance(new, list) and any(isinstance(each, dict) for each in [*old, *new]):
        for number in range(max(len(old), len(new))):
            a = old[number] if number < len(old) else _ABSENT
            b = new[number] if number < len(new) else _ABSENT
            yield from _differences(a, b, (*at, number))
    elif type(old) is not type(new) or old != new:
        if isinstance(old, dict) and new is _ABSENT and old:
            for key, value in old.items():
                yield (*at, key), value, _ABSENT
        elif isinstance(new, dict) and old in (_ABSENT, None) and new:
            for key, value in new.items():
                yield (*at, key), _ABSENT, value
        elif not (isinstance(old, int | float) and isinstance(new, int | float) and old == new):
            yield at, old, new
