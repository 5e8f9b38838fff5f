"""Where each value is in YAML text: its key, its first and its last character, anchors and aliases."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import yaml

from hv15.errors import UserError
from hv15.records.problems import Location, dotted

_ALIAS = re.compile(r"\s*:\s*(\*[^\s,\]}]+)")


@lru_cache(maxsize=4)
def compose(text: str) -> yaml.Node:
    """Return the nodes of YAML text, with their places."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    assert node is not None
    return node


@dataclass(frozen=True)
class ValueSpan:
    """A value's place in the text."""

    text: str
    """The whole."""
    key: yaml.Node | None
    """None in a list."""
    node: yaml.Node

    @property
    def alias(self) -> re.Match[str] | None:
        """The `*name` that is here instead of a value."""
        if self.key is None or self.node.start_mark.index >= self.key.end_mark.index:
            return None
        return _ALIAS.match(self.text, self.key.end_mark.index)

    @property
    def start(self) -> int:
        return self.alias.start(1) if self.alias else int(self.node.start_mark.index)

    @property
    def end(self) -> int:
        """The position after the last character of the value."""
        if self.alias:
            return self.alias.end(1)
        if is_block(self.node) and self.node.value:
            return children(self.text, self.node)[-1].end
        first, last = self.node.start_mark.index, self.node.end_mark.index
        if isinstance(self.node, yaml.ScalarNode) and self.node.style in ("|", ">"):
            return int(first) + len(self.text[first:last].rstrip())
        return int(last)


def is_block(node: yaml.Node) -> bool:
    return isinstance(node, yaml.CollectionNode) and not node.flow_style


def children(text: str, node: yaml.Node) -> list[ValueSpan]:
    """What a mapping or a list holds, in the order of the text."""
    if isinstance(node, yaml.MappingNode):
        return [ValueSpan(text, key, value) for key, value in node.value]
    if isinstance(node, yaml.SequenceNode):
        return [ValueSpan(text, None, value) for value in node.value]
    return []


def _child(text: str, node: yaml.Node, part: str | int) -> ValueSpan | None:
    below = children(text, node)
    if isinstance(node, yaml.SequenceNode):
        return below[part] if isinstance(part, int) and part < len(below) else None
    return next((each for each in reversed(below) if each.key is not None and each.key.value == str(part)), None)


def walk(text: str, location: Location) -> list[ValueSpan]:
    """The places along a location, as far as they are in the text; first the whole."""
    places = [ValueSpan(text, None, compose(text))]
    for part in location:
        found = _child(text, places[-1].node, part)
        if found is None:
            break
        places.append(found)
        if found.alias and len(places) <= len(location):
            raise refused(location)
    return places


def location_at(text: str, line: int) -> Location:
    """Return the location of the innermost setting that a line (from 1) belongs to; () when there is none."""
    try:
        node = compose(text)
    except (yaml.YAMLError, AssertionError, RecursionError):
        return ()
    location: list[str | int] = []
    while True:
        found = None
        for number, place in enumerate(children(text, node)):
            begin = place.node.start_mark.line if place.key is None else place.key.start_mark.line
            if begin + 1 <= line and text.count("\n", 0, place.end) + 1 >= line:
                found = (number if place.key is None else str(place.key.value), place.node)
        if found is None:
            return tuple(location)
        location.append(found[0])
        node = found[1]


def refused(location: Location) -> UserError:
    """Say that a place cannot be edited alone."""
    return UserError(
        f"{dotted(location)}: cannot be changed here without touching other parts of the file",
        hint="edit it in the YAML text",
    )
