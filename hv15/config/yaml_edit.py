"""Edits of YAML text that touch one place and leave every other byte, comment and space as it was.

Each edit is verified: the new text is read again, and its values must be the old ones with that one change. Edits that
cannot be done this way (a value that an anchor shares with another place, a list in an unusual style) are refused.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import yaml

from hv15.config.yaml_file import YamlFile, read_yaml
from hv15.config.yaml_places import ValueSpan, children, is_block, refused, walk
from hv15.config.yaml_text import block, entry, parse, scalar
from hv15.errors import UserError
from hv15.records.json_values import Json
from hv15.records.paths import CONFIG
from hv15.records.problems import Location, dotted

_FILE = Path(CONFIG)
_ANCHOR = re.compile(r"&[^\s,\]}]+\s+")


def set_value(text: str, location: Location, value: Json, *, literal: str | None = None) -> str:
    """Give the setting at a location another value, or add it.

    Args:
        literal: how to write the value, such as 1e-4.

    Raises:
        UserError: the text is not YAML, or it cannot be done without touching more than this.
    """
    if literal is not None:
        value = parse(literal)
    before = values(text).data

    def change(data: Json) -> Json:
        return _with_value(data, location, value)

    return _verified(before, _set(text, location, value, literal), change, location)


def remove_value(text: str, location: Location) -> str:
    """Remove a key with its value, or an entry of a list.

    Raises:
        UserError: it is not there, or it cannot be done without touching more than this.
    """
    before = values(text).data

    def change(data: Json) -> Json:
        return _without(data, location)

    return _verified(before, _remove(text, location), change, location)


def add_entry(text: str, location: Location, value: Json) -> str:
    """Append an entry to the list at a location, which is added if it is missing.

    Raises:
        UserError: there is no list, or it cannot be done without touching more than this.
    """
    before = values(text).data
    found: Json = before
    for part in location:
        found = _below(found, part)
    if found is None or found == []:
        return set_value(text, location, [value])
    if not isinstance(found, list):
        raise UserError(f"{dotted(location)}: is not a list here", hint="edit it in the YAML text")
    return set_value(text, (*location, len(found)), value)


@lru_cache(maxsize=8)
def values(text: str) -> YamlFile:
    """Read YAML text; what is returned is shared and must not be changed.

    Raises:
        UserError: it is not YAML, or not a mapping.
    """
    return read_yaml(_FILE, text)


# -- verification -----------------------------------------------------------------------------------------------------


def _verified(before: Json, after: str, change: Callable[[Json], Json], location: Location) -> str:
    try:
        same = _equal(values(after).data, change(copy.deepcopy(before)))
    except UserError:
        same = False
    if not same:
        raise refused(location)
    return after


def _equal(a: Json, b: Json) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


def _with_value(data: Json, location: Location, value: Json) -> Json:
    if not location:
        return value
    first, rest = location[0], location[1:]
    inner = _with_value(_below(data, first), rest, value)
    if isinstance(first, int) and isinstance(data, list):
        return [*data[:first], inner, *data[first + 1 :]]
    base = data if isinstance(data, dict) else {}
    return {**base, str(first): inner}


def _without(data: Json, location: Location) -> Json:
    *path, last = location
    holder = data
    for part in path:
        holder = _below(holder, part)
    if isinstance(holder, dict):
        holder.pop(str(last))
    elif isinstance(holder, list) and isinstance(last, int):
        holder.pop(last)
    if path and isinstance(holder, dict) and not holder:
        return _with_value(data, tuple(path), None)
    return data


def _below(data: Json, part: str | int) -> Json:
    """The value of a key, or an entry of a list; None if there is none."""
    if isinstance(data, dict) and isinstance(part, str):
        return data.get(part)
    return data[part] if isinstance(data, list) and isinstance(part, int) and part < len(data) else None


# -- edits ------------------------------------------------------------------------------------------------------------


def _set(text: str, location: Location, value: Json, literal: str | None) -> str:
    places = walk(text, location)
    if len(places) <= len(location):
        return _insert(text, places[-1], location, len(places) - 1, value, literal)
    place = places[-1]
    flow = any(isinstance(each.node, yaml.CollectionNode) and each.node.flow_style for each in places[:-1])
    if isinstance(value, dict) and isinstance(place.node, yaml.MappingNode) and value and not place.alias:
        return _set_mapping(text, location, place, value)
    if isinstance(value, list) and isinstance(place.node, yaml.SequenceNode) and not place.alias:
        changed = _set_list(text, location, place, list(value))
        if changed is not None:
            return changed
    old = text[place.start : place.end]
    anchor = _ANCHOR.match(old)
    kept, old = (anchor[0], old[anchor.end() :]) if anchor else ("", old)
    new = kept + (literal if literal is not None else scalar(value, flow=flow, like=old))
    if is_block(place.node):
        assert place.key is not None
        start = text.index(":", place.key.end_mark.index) + 1
        return f"{text[:start]} {new}{text[place.end :]}"
    gap = " " if place.start == place.end and text[place.start - 1] in ":-" else ""
    return f"{text[: place.start]}{gap}{new}{text[place.end :]}"


def _set_mapping(text: str, location: Location, place: ValueSpan, value: dict[str, Json]) -> str:
    names = [str(each.key.value) for each in children(text, place.node) if each.key is not None]
    for name, inner in value.items():
        text = _set(text, (*location, str(name)), inner, None)
    for name in names:
        if name not in value:
            text = _remove(text, (*location, name))
    return text


def _set_list(text: str, location: Location, place: ValueSpan, value: list[Json]) -> str | None:
    """Change entry by entry, so that comments beside them stay; None when the list is better written as a whole."""
    count = len(place.node.value)
    if not value or (len(value) != count and not is_block(place.node)):
        return None
    for number in range(count, len(value), -1):
        text = _remove(text, (*location, number - 1))
    for number, inner in enumerate(value):
        text = _set(text, (*location, number), inner, None)
    return text


def _insert(text: str, holder: ValueSpan, location: Location, depth: int, value: Json, literal: str | None) -> str:
    """Add the missing part of a location below its deepest existing place."""
    part, rest = location[depth], location[depth + 1 :]
    for name in reversed(rest):
        if not isinstance(name, str):
            raise refused(location)
        value = {name: value}
    newline = "\r\n" if "\r\n" in text else "\n"
    node = holder.node
    if isinstance(node, yaml.ScalarNode) and node.value in ("", "~", "null", "Null", "NULL") and isinstance(part, str):
        if holder.key is None or node.start_mark.index != node.end_mark.index:
            return text[: holder.start] + scalar({part: value}) + text[holder.end :]
        column = holder.key.start_mark.column + 2
        return _line_after(text, holder.end, column, block(part, value, column, newline), newline)
    if isinstance(node, yaml.MappingNode) and isinstance(part, str):
        if node.flow_style:
            written = f"{part}: {literal}" if literal and not rest else scalar({part: value})[1:-1]
            return _into_flow(text, node, written)
        column = node.value[0][0].start_mark.column
        written = f"{part}: {literal}" if literal and not rest else block(part, value, column, newline)
        return _line_after(text, holder.end, column, written, newline)
    if isinstance(node, yaml.SequenceNode) and part == len(node.value) and not rest:
        if node.flow_style:
            return _into_flow(text, node, literal or scalar(value, flow=True))
        column = node.start_mark.column
        return _line_after(text, holder.end, column, entry(value, column, newline), newline)
    raise refused(location)


def _into_flow(text: str, node: yaml.Node, written: str) -> str:
    below = children(text, node)
    place = below[-1].end if below else node.start_mark.index + 1
    return f"{text[:place]}{', ' if below else ''}{written}{text[place:]}"


def _line_after(text: str, place: int, column: int, written: str, newline: str) -> str:
    """Insert lines after the line that a place is in."""
    end = text.find("\n", place)
    if end < 0:
        return f"{text}{newline}{' ' * column}{written}"
    return f"{text[: end + 1]}{' ' * column}{written}{newline}{text[end + 1 :]}"


def _remove(text: str, location: Location) -> str:
    places = walk(text, location)
    if len(places) <= len(location) or not location:
        raise UserError(f"{dotted(location)}: is not in the file", hint="its default is used already")
    place, holder = places[-1], places[-2]
    below = children(text, holder.node)
    number = next(index for index, each in enumerate(below) if each.key is place.key and each.node is place.node)
    start = int(place.start if place.key is None else place.key.start_mark.index)
    if not is_block(holder.node):
        if number + 1 < len(below):
            after = below[number + 1]
            return text[:start] + text[int(after.start if after.key is None else after.key.start_mark.index) :]
        return text[: below[number - 1].end if number else start] + text[place.end :]
    if isinstance(holder.node, yaml.SequenceNode):
        if len(below) == 1:
            return _set(text, location[:-1], [], None)
        start = text.rindex("-", 0, start)
    line = text.rfind("\n", 0, start) + 1
    end = text.find("\n", place.end)
    end = len(text) if end < 0 else end + 1
    if not text[line:start].strip():
        return text[:line] + text[end:]
    if number + 1 < len(below) and (after_key := below[number + 1].key) is not None:  # the first key after a dash
        return text[:start] + text[after_key.start_mark.index :]
    raise refused(location)
