"""A stylesheet that parses each source once.

Textual's own forgets what it parsed when there are more than 64 sources (each widget class is one), and parses all of
them anew whenever a screen is shown for the first time: half a second each, in which no key is answered.
"""

from __future__ import annotations

from textual.cache import LRUCache
from textual.css.stylesheet import Stylesheet

SOURCES = 1024


class CachedStylesheet(Stylesheet):
    """Parses again only what is new, and all of it when the theme has changed."""

    def __init__(self, *, variables: dict[str, str] | None = None) -> None:
        super().__init__(variables=variables)
        self._parse_cache = LRUCache(SOURCES)

    def set_variables(self, variables: dict[str, str]) -> None:
        if variables != self._variables:
            super().set_variables(variables)

    def reparse(self) -> None:
        self.parse()
