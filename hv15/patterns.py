"""Regular expressions from a config or from a file's metadata, searched for within a time limit.

Python's own engine can take years for `(\\w+)+!` in a name of 30 letters. The `regex` package takes the same
expressions, lookaheads included, and keeps to a limit.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import regex

SECONDS = 5.0
"""Limit for all searches of one `Searches`. 100 usual patterns in the names of a whole model take 0.1."""
LONGEST = 1000
"""The most characters that an expression may have."""


class PatternError(ValueError):
    """A text is not a regular expression, or searching for it takes too long."""


class Searches:
    """Searches for expressions, with one time limit for all of them."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._left = seconds

    def found(self, pattern: str, text: str) -> bool:
        """Whether an expression is found anywhere in a text.

        Raises:
            PatternError: it is not an expression, or the time is used up.
        """
        compiled, begun = compile_pattern(pattern), time.monotonic()
        try:
            if self._left <= 0:
                raise TimeoutError
            return compiled.search(text, timeout=self._left) is not None
        except (TimeoutError, MemoryError, RecursionError):
            raise PatternError("it takes too long: does it nest repetitions, as (a+)+ does?") from None
        finally:
            self._left -= time.monotonic() - begun


@lru_cache(maxsize=1024)
def compile_pattern(pattern: str) -> regex.Pattern[str]:
    """Compile an expression.

    Raises:
        PatternError: it is not an expression, or it is too long.
    """
    import regex

    if len(pattern) > LONGEST:
        raise PatternError(f"{len(pattern):,} characters, at most {LONGEST:,} are possible")
    try:
        return regex.compile(pattern)
    except regex.error as error:
        raise PatternError(str(error)) from None
    except (RecursionError, OverflowError, MemoryError, ValueError):
        raise PatternError("it is nested too deep") from None
