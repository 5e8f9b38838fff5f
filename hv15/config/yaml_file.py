"""Reads config.yaml as a mapping with the position of each value, with less surprising rules than YAML 1.1.

- `1e-4`, `1E3` and `.5e-3` are numbers (in YAML 1.1 they are text).
- Only true and false are booleans, only decimal and 0x numbers are integers, and nothing becomes a date.
- A duplicate key in a mapping is an error. Anchors and merge keys (`<<: *name`) work.
- Values are those of JSON: other tags (`!!set`, `!!timestamp`), lone surrogates and endless numbers are errors.
- Any file is read or refused within seconds: its size is limited, and so is what its aliases expand to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import yaml

from hv15.config.yaml_errors import explain_yaml
from hv15.records.json_values import Json, JsonObject
from hv15.records.paths import CONFIG
from hv15.records.problems import ConfigError, Location, Place, Problem

_MERGE = "tag:yaml.org,2002:merge"
_TEXT = "tag:yaml.org,2002:str"
_LISTS = ("tag:yaml.org,2002:seq", "tag:yaml.org,2002:map")

MOST_BYTES = 1 << 20
"""The largest file. That of a project has a few thousand bytes; one with a thousand long prompts, half a million."""
DEEPEST = 100
"""Levels of nested lists and mappings."""
MOST_VALUES = 50_000
"""Including what aliases repeat: ten of ten of ten ... make 10^10 values from a few lines."""
LONGEST_NUMBER = 400
"""Digits of a number."""
MOST_PROBLEMS = 100
"""Reported at once."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalar rules of the module docstring instead of YAML 1.1's."""

    # PyYAML's class attribute, which is emptied here to start without its rules.
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012
    nodes = depth = 0

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
        """Count nodes (100,000 take half a minute) and levels (Python's own limit depends on the caller)."""
        self.nodes += 1
        self.depth += 1
        if self.nodes > MOST_VALUES:
            raise _TooManyError
        if self.depth > DEEPEST:
            raise RecursionError
        node: yaml.Node | None = super().compose_node(parent, index)  # type: ignore[arg-type]  # an int, or a node
        self.depth -= 1
        return node


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", [*"~nN", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F_]+", [*"-+0123456789"]),
    (
        "float",
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        [*"-+0123456789."],
    ),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)


class _TooManyError(Exception):
    """More values than are read."""


class _NumberError(yaml.MarkedYAMLError):
    """A number that Python cannot read."""


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    try:
        return loader.construct_yaml_int(node)
    except ValueError as error:
        problem = f"a number cannot be read: {str(error).partition(';')[0]}"
        raise _NumberError(problem=problem, problem_mark=node.start_mark) from None


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


@dataclass(frozen=True)
class YamlFile:
    """A parsed file: its values and, by location such as ("train", "learning_rate"), their positions in the text."""

    path: Path
    data: JsonObject
    node: yaml.MappingNode

    def position(self, location: Location, *, of_key: bool = False) -> tuple[int, int]:
        """Return line and column (from 1) of the value at a location, or of its key.

        If the location is not in the file (a missing key), it is the position of the key of the innermost mapping that
        is.
        """
        return _position(self.node, location, of_key)


@dataclass(frozen=True)
class YamlList:
    """A parsed file whose top level is a list: its values, and their positions in the text."""

    path: Path
    data: list[Json]
    node: yaml.SequenceNode

    def position(self, location: Location, *, of_key: bool = False) -> tuple[int, int]:
        """Return line and column, as `YamlFile.position`; a location begins with the number of an entry."""
        return _position(self.node, location, of_key)


def _position(node: yaml.Node, location: Location, of_key: bool) -> tuple[int, int]:
    mark = node.start_mark
    for depth, part in enumerate(location):
        key, value = _child(node, part)
        if value is None:
            break
        node = value
        last = depth == len(location) - 1
        mark = node.start_mark if key is None or (last and not of_key and _is_leaf(node)) else key.start_mark
    return mark.line + 1, mark.column + 1


def read_yaml(path: Path, text: str | None = None) -> YamlFile:
    """Read a YAML file whose top level is a mapping; with `text`, that is read instead of the file's content.

    Raises:
        ConfigError: the file is missing, unreadable, not UTF-8, not YAML (with line and column), or empty, has
            duplicate keys (all are listed), a value that contains itself, or no mapping at the top.
    """
    hint = "`hv15 new FOLDER` writes a commented config.yaml to start from"
    data, node = _parse(path, text, yaml.MappingNode, "settings such as `task: t2v`", hint)
    assert isinstance(data, dict)
    assert isinstance(node, yaml.MappingNode)
    return YamlFile(path, data, node)


def read_yaml_list(path: Path, expected: str) -> YamlList:
    """Read a YAML file whose top level is a list.

    Args:
        expected: its entries, for messages.

    Raises:
        ConfigError: as `read_yaml`.
    """
    data, node = _parse(path, None, yaml.SequenceNode, f"a list of {expected}", f"write a list of {expected}")
    assert isinstance(data, list)
    assert isinstance(node, yaml.SequenceNode)
    return YamlList(path, data, node)


def _parse(path: Path, text: str | None, kind: type[yaml.Node], expected: str, hint: str) -> tuple[Json, yaml.Node]:
    """Return the values of a file and its node, which has to be of this kind."""
    text = _read_text(path) if text is None else text
    if len(text) > MOST_BYTES:
        raise _error(f"has {len(text):,} characters, at most {MOST_BYTES:,} are read", Place(path), "is it a config?")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None or (isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null")):
            raise _error("is empty", Place(path), hint)
        if not isinstance(node, kind):
            found = "a list" if isinstance(node, yaml.SequenceNode) else "text"
            found = "settings" if isinstance(node, yaml.MappingNode) else found
            raise _error(f"found {found}, expected {expected}", Place(path, 1, 1))
        if wrong := list(islice(_problems(path, loader, node, (), [], set()), MOST_PROBLEMS)):
            raise ConfigError(sorted(wrong, key=lambda each: (each.place.line or 0, each.place.column or 0)))
        if (values := _values(node, {})) > MOST_VALUES:
            raise _too_many(path, f"{values:,}" if values < 10**15 else "more than 10^15")
        data: Json = loader.construct_document(node)
        return data, node
    except yaml.YAMLError as error:
        raise _not_yaml(path, error, text) from None
    except _TooManyError:
        raise _too_many(path, f"more than {MOST_VALUES:,}") from None
    except RecursionError:
        raise _error("is nested too deeply", Place(path), "look for brackets that are not closed") from None


def _too_many(path: Path, found: str) -> ConfigError:
    message = f"holds {found} values, including what aliases (*name) repeat; at most {MOST_VALUES:,} are read"
    return _error(message, Place(path), "put long lists into a file of their own, such as video_jsonl_file")


def _error(message: str, place: Place, hint: str = "") -> ConfigError:
    return ConfigError([Problem(message, hint, place)])


def _read_text(path: Path) -> str:
    data = read_regular_file(path, 4 * MOST_BYTES + 1)
    try:
        return data.decode("utf-8-sig", "ignore" if len(data) > 4 * MOST_BYTES else "strict")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise _error("is not UTF-8", Place(path, line), "save the file as UTF-8 in your editor") from None


def read_regular_file(path: Path, most: int) -> bytes:
    """Return the first bytes of a file, at most so many.

    Raises:
        ConfigError: it is missing, no regular file, or cannot be read.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe would be waited for
            raise _error("is not a regular file", Place(path))
        with path.open("rb") as file:
            return file.read(most)  # of a device, too
    except FileNotFoundError:
        hint = "check the path, or make a project with `hv15 new FOLDER`"
        raise _error("no such file", Place(path), hint) from None
    except IsADirectoryError:
        raise _error("is a folder", Place(path), f"use the file in it: {path / CONFIG}") from None
    except OSError as error:
        raise _error(f"cannot be read: {error.strerror}", Place(path)) from None


def _not_yaml(path: Path, error: yaml.YAMLError, text: str) -> ConfigError:
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark or error.context_mark):
        if isinstance(error, _NumberError):
            return _error(error.problem or "a number cannot be read", _place(path, mark))
        found = explain_yaml(error, mark, text)
        return _error(f"is not YAML: {found.message}", Place(path, found.line, found.column), found.hint)
    if isinstance(error, yaml.reader.ReaderError):
        before = text[: error.position]
        place = Place(path, before.count("\n") + 1, len(before) - before.rfind("\n"))
        return _error(f"is not YAML: found the control character 0x{error.character:02x}", place, "delete it")
    return _error(f"is not YAML: {error}", Place(path))


def _place(path: Path, mark: yaml.Mark, location: Location = ()) -> Place:
    return Place(path, mark.line + 1, mark.column + 1, location)


def _circle(place: Place) -> Problem:
    return Problem("contains itself", "look at the anchors (&name) and aliases (*name)", place)


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many values a node has with each alias expanded; `known` holds the counts found so far."""
    if id(node) not in known:
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            inner = node.value
        elif isinstance(node, yaml.MappingNode):
            inner = [value for _, value in node.value]
        known[id(node)] = 1 + sum(_values(each, known) for each in inner)
    return known[id(node)]


def _wrong_scalar(loader: _Loader, node: yaml.ScalarNode) -> str:
    """Return what is wrong with a single value, or an empty string."""
    if any("\ud800" <= letter <= "\udfff" for letter in node.value):
        return "holds half a character (an escape \\ud800 to \\udfff): write the character itself"
    plain = str(loader.resolve(yaml.ScalarNode, node.value, (True, False)))
    if node.tag != _TEXT and plain.endswith((":int", ":float")) and len(node.value) > LONGEST_NUMBER:
        return f"found a number of {len(node.value):,} digits, expected at most {LONGEST_NUMBER:,}"
    if node.tag in (_TEXT, plain) or (node.tag.endswith(":float") and plain.endswith(":int")):
        return ""
    return f"found {node.value!r:.60} with the tag {_short(node.tag)}, which does not fit it: leave the tag out"


def _short(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")[:60]


def _problems(
    path: Path, loader: _Loader, node: yaml.Node, at: Location, above: list[int], seen: set[int]
) -> Iterator[Problem]:
    """Yield problems that Python's YAML would accept.

    These are keys that are not text, duplicate keys, values that contain themselves, and values that JSON cannot hold.

    Args:
        above: the nodes that contain this one.
        seen: the nodes that were checked already, to which an alias leads.
    """
    if id(node) in seen:
        return
    seen.add(id(node))
    above = [*above, id(node)]
    if isinstance(node, yaml.ScalarNode):
        if wrong := _wrong_scalar(loader, node):
            yield Problem(wrong, place=_place(path, node.start_mark, at))
    elif node.tag not in _LISTS:
        found = f"found the tag {_short(node.tag)}, expected plain values: leave the tag out"
        yield Problem(found, place=_place(path, node.start_mark, at))
    if isinstance(node, yaml.SequenceNode):
        for number, entry in enumerate(node.value):
            if id(entry) in above:
                yield _circle(_place(path, node.start_mark, (*at, number)))
            yield from _problems(path, loader, entry, (*at, number), above, seen)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            inner = (*at, str(key.value)) if isinstance(key, yaml.ScalarNode) else at
            place = _place(path, key.start_mark, inner)
            if not isinstance(key, yaml.ScalarNode) or key.tag not in (_MERGE, _TEXT):
                yield Problem("expected a name as the key; if it is a name, put it in quotes", place=place)
            elif wrong := _wrong_scalar(loader, key):
                yield Problem(wrong, place=place)
            elif key.tag == _TEXT:
                if key.value in lines:
                    yield Problem(f"is a duplicate: the key is already in line {lines[key.value]}", place=place)
                lines.setdefault(key.value, key.start_mark.line + 1)
            if id(value) in above:
                yield _circle(place)
            yield from _problems(path, loader, value, inner, above, seen)


def _child(node: yaml.Node, part: str | int) -> tuple[yaml.Node | None, yaml.Node | None]:
    """Return the nodes of a key and its value in a mapping, where merged keys come first, or of a list's entry."""
    if isinstance(node, yaml.MappingNode):
        for key, value in reversed(node.value):
            if isinstance(key, yaml.ScalarNode) and key.value == str(part):
                return key, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return None, node.value[part]
    return None, None


def _is_leaf(node: yaml.Node) -> bool:
    """Whether a value is on its key's line, so that its own position is shown instead of the key's."""
    return isinstance(node, yaml.ScalarNode) or bool(getattr(node, "flow_style", False))
