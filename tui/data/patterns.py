"""What a person types to search for: a regular expression if it is one, else plain text.

The `regex` package can stop after a time limit: Python's own engine can search one line for years.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import regex

from hv15.patterns import PatternError

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 1.0
"""The limit for one search in a part of a log; usually it takes milliseconds."""
DRAWING_SECONDS = 0.02
"""The limit for finding all matches in a line that is drawn."""
TOO_LONG = "it takes too long: does it nest repetitions, as (a+)+ does?"


@dataclass(frozen=True)
class SearchPattern:
    """A compiled search, for text and for bytes."""

    text: regex.Pattern[str]
    data: regex.Pattern[bytes]
    literal: bool
    """Whether it is searched as text."""
    note: str
    """Why it is, although it looks like an expression; else ""."""
    needle: bytes | None = None
    """Bytes that each matching line holds when it is lowercased, if there are any: a quick test."""

    def is_in(self, text: str) -> bool:
        """Whether a line matches.

        Raises:
            PatternError: it takes too long.
        """
        try:
            return self.text.search(text, timeout=SECONDS, concurrent=True) is not None
        except TimeoutError:
            raise PatternError(TOO_LONG) from None

    def find(self, data: bytes, position: int) -> int | None:
        """Return where the first match at or after a position in some lines starts.

        Raises:
            PatternError: it takes too long.
        """
        try:
            found = self.data.search(data, position, timeout=SECONDS, concurrent=True)
        except TimeoutError:
            raise PatternError(TOO_LONG) from None
        return None if found is None else found.start()

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield start and end of the matches in a line, as many as are found within `DRAWING_SECONDS`."""
        try:
            for found in self.text.finditer(text, timeout=DRAWING_SECONDS):
                yield found.span()
        except TimeoutError:
            return


def search_pattern(words: str) -> SearchPattern:
    """Compile a search. It is case-sensitive if it has capitals. What is not an expression is searched as text."""
    flags = 0 if any(letter.isupper() for letter in re.sub(r"\\.", "", words)) else regex.IGNORECASE
    try:
        literal = not re.search(r"[\\^$.|?*+()\[{]", words)
        return replace(_compiled(words, flags, literal, ""), needle=_needle(words) if literal else None)
    except (regex.error, RecursionError, OverflowError, MemoryError, ValueError) as error:
        note = f"not a regular expression ({error}): searched as plain text"
    return replace(_compiled(re.escape(words), flags, literal=True, note=note), needle=_needle(words))


def _needle(words: str) -> bytes | None:
    """Only for ASCII: other bytes cannot be lowercased as text can."""
    return words.lower().encode() if words.isascii() and words else None


def _compiled(expression: str, flags: int, literal: bool, note: str) -> SearchPattern:
    text, data = regex.compile(expression, flags), expression.encode("utf-8", "surrogateescape")
    try:
        return SearchPattern(text, regex.compile(data, flags | regex.MULTILINE), literal, note)
    except regex.error as error:  # a range in a class of characters that take several bytes
        note = f"not possible for bytes ({error}): searched as plain text"
        escaped = re.escape(expression)
        data = escaped.encode("utf-8", "surrogateescape")
        return SearchPattern(regex.compile(escaped, flags), regex.compile(data, flags), True, note)
