"""What a person types to search for: a regular expression if it is one, else plain text."""

from __future__ import annotations

import re
import re._constants as constants
import re._parser as parser
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class SearchPattern:
    """A compiled search, for text and for bytes."""

    text: re.Pattern[str]
    data: re.Pattern[bytes]
    literal: bool
    """Whether it is searched as text."""
    note: str
    """Why it is, although it looks like an expression; else ""."""
    needle: bytes | None = None
    """Bytes that each matching line holds when it is lowercased, if there are any: a quick test."""


def compile_pattern(words: str) -> SearchPattern:
    """Compile a search. It is case-sensitive if it has capitals. What is not an expression is searched as text."""
    flags = 0 if any(letter.isupper() for letter in re.sub(r"\\.", "", words)) else re.IGNORECASE
    note = ""
    try:
        if explodes(parser.parse(words)):
            note = "nested repetitions could take forever: searched as plain text"
        else:
            literal = not re.search(r"[\\^$.|?*+()\[{]", words)
            return replace(_compiled(words, flags, literal, ""), needle=_needle(words) if literal else None)
    except (re.error, RecursionError, OverflowError) as error:
        note = f"not a regular expression ({error}): searched as plain text"
    return replace(_compiled(re.escape(words), flags, literal=True, note=note), needle=_needle(words))


def _needle(words: str) -> bytes | None:
    """Only for ASCII: other bytes cannot be lowercased as text can."""
    return words.lower().encode() if words.isascii() and words else None


def _compiled(expression: str, flags: int, literal: bool, note: str) -> SearchPattern:
    data = expression.encode("utf-8", "surrogateescape")
    try:
        return SearchPattern(re.compile(expression, flags), re.compile(data, flags | re.MULTILINE), literal, note)
    except re.error as error:  # a range in a class of characters that take several bytes
        note = f"not possible for bytes ({error}): searched as plain text"
        escaped = re.escape(expression)
        return SearchPattern(
            re.compile(escaped, flags), re.compile(escaped.encode("utf-8", "surrogateescape"), flags), True, note
        )


def explodes(tree: Any, inside: bool = False) -> bool:
    """Whether an expression has an unlimited repetition inside another one, such as (a+)+.

    Args:
        tree: of Python's own parser, which has no types.
    """
    for operation, argument in tree:
        if operation in (constants.MAX_REPEAT, constants.MIN_REPEAT):
            _, most, inner = argument
            unlimited = most is constants.MAXREPEAT or most > 100
            if (unlimited and inside) or explodes(inner, inside or unlimited):
                return True
        elif operation is constants.SUBPATTERN:
            if explodes(argument[-1], inside):
                return True
        elif operation is constants.BRANCH:
            if any(explodes(each, inside) for each in argument[1]):
                return True
        elif operation in (constants.ASSERT, constants.ASSERT_NOT) and explodes(argument[1], inside):
            return True
    return False
