"""What PyYAML finds wrong with a text, said where it began and with the cure."""

from __future__ import annotations

import re
from dataclasses import dataclass

import yaml

LOOK = "look at this line and the one above it"
QUOTE = "put it in quotes"
_INDICATOR = re.compile(
    r"found character '[@`%!&*?|>]' that|found undefined alias|sequence entries are not allowed here"
    r"|expected alphabetic or numeric character"
)
"""Errors about a text that begins with a character of YAML's own."""


@dataclass(frozen=True)
class YamlProblem:
    """One error: what, where (line and column from 1), what to do."""

    message: str
    line: int
    column: int
    hint: str


def explain_yaml(error: yaml.MarkedYAMLError, mark: yaml.Mark, text: str) -> YamlProblem:
    """Say an error in a text that is no YAML.

    Args:
        mark: where PyYAML has noticed it.
    """
    problem = (error.problem or "cannot be read").strip()
    begun = error.context_mark
    if error.context == "while scanning a quoted scalar" and begun is not None and "end of stream" in problem:
        return _at(begun, "the quote that is opened here is never closed", "close it with the same sign")
    if "but found '<scalar>'" in problem and (quoted := _quoted_before(text, mark)) is not None:
        start, end = quoted
        if start.line != end.line:
            words = f"the quote that is opened here is closed in line {end.line + 1}, and more text follows there"
            return _at(start, words, "close it in its own line")
        return _at(mark, "text after a value in quotes", "put the whole value in quotes, those in it doubled")
    if problem.startswith("but ") and error.context:
        problem = f"{error.context}, {problem}"
    return _at(mark, problem, _hint(problem, mark, text))


def _at(mark: yaml.Mark, message: str, hint: str) -> YamlProblem:
    return YamlProblem(message, mark.line + 1, mark.column + 1, hint)


def _hint(problem: str, mark: yaml.Mark, text: str) -> str:
    if r"found character '\t'" in problem:
        return "indent with spaces, not with tabs"
    line = text.splitlines()[mark.line] if mark.line < len(text.splitlines()) else ""
    if problem.startswith("mapping values"):
        key, colon, value = line[: mark.column].partition(": ")
        if colon and not key.lstrip(" -").startswith(("'", '"', "#")):
            whole = value + line[mark.column :]
            return f"{QUOTE}: {key.lstrip(' -')}: '{whole.strip().replace(chr(39), chr(39) * 2)}'"
        return "the line is indented, but the one above it has a value already"
    return f"if it is text, {QUOTE}" if _INDICATOR.search(problem) else LOOK


def _quoted_before(text: str, mark: yaml.Mark) -> tuple[yaml.Mark, yaml.Mark] | None:
    """Where the last text in quotes before a place begins and ends, if nothing else stands between."""
    last: tuple[yaml.Mark, yaml.Mark] | None = None
    try:
        for token in yaml.scan(text):
            if token.start_mark.index >= mark.index:
                break
            quoted = isinstance(token, yaml.ScalarToken) and token.style in ("'", '"')
            last = (token.start_mark, token.end_mark) if quoted else None
    except yaml.YAMLError:  # further down
        pass
    return last
