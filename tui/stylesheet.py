"""A stylesheet that parses each source once for each theme.

Textual's own forgets what it parsed when there are more than 64 sources (each widget class is one), and parses all of
them again whenever a screen is shown for the first time. That takes half a second, in which no key is answered.
"""

from __future__ import annotations

from typing import TypeAlias

from textual.cache import LRUCache
from textual.css.model import RuleSet
from textual.css.stylesheet import Stylesheet

SOURCES, THEMES = 1024, 4

_Parsed: TypeAlias = "LRUCache[tuple[object, ...], list[RuleSet]]"

_parsed: LRUCache[tuple[tuple[str, str], ...], _Parsed] = LRUCache(THEMES)
"""Variables -> what was parsed with them, shared by all stylesheets: rules do not change."""


class CachedStylesheet(Stylesheet):
    """Parses again only what is new."""

    def __init__(self, *, variables: dict[str, str] | None = None) -> None:
        super().__init__(variables=variables)
        self._parse_cache = _parsed_with(self._variables)

    def set_variables(self, variables: dict[str, str]) -> None:
        if variables != self._variables:
            self._parse_cache = LRUCache(1)  # Textual clears it; what was parsed with other variables stays
            super().set_variables(variables)
            self._parse_cache = _parsed_with(variables)

    def reparse(self) -> None:
        self.parse()


def _parsed_with(variables: dict[str, str]) -> _Parsed:
    key = tuple(sorted(variables.items()))
    found = _parsed.get(key)
    if found is None:
        found = _parsed[key] = LRUCache(SOURCES)
    return found
