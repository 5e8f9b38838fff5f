"""Regular expressions that others wrote: in a config, or in the metadata of a file. They get so much time, and no more.

Python's own engine can search for years: `(\\w+)+!` in a name of 30 letters. The `regex` package takes the same
expressions, with lookaheads and all, and keeps a limit.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import regex

SECONDS = 5.0
"""For all searches of one `Searches`. 100 usual patterns in the names of a whole model take 0.1."""
LONGEST = 1000
"""Characters of an expression."""


class PatternError(ValueError):
    """A text is no regular expression, or one that takes too long."""


class Searches:
    """Searches for expressions, all together within a time."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._left = seconds

    def found(self, pattern: str, text: str) -> bool:
        """Whether an expression is found anywhere in a text.

        Raises:
            PatternError: it is no expression, or the time is used up.
        """
        compiled, begun = compile_pattern(pattern), time.monotonic()
        try:
            if self._left <= 0:
                raise TimeoutError
            return compiled.search(text, timeout=self._left) is not None
        except (TimeoutError, MemoryError, RecursionError):
            raise PatternError("it takes too long: a repetition in a repetition, such as (a+)+?") from None
        finally:
            self._left -= time.monotonic() - begun


@lru_cache(maxsize=1024)
def compile_pattern(pattern: str) -> regex.Pattern[str]:
    """Compile an expression.

    Raises:
        PatternError: it is none, or it is too long.
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
