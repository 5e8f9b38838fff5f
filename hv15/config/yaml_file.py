"""config.yaml as a mapping that remembers where each value stands, read by rules that surprise nobody.

- `1e-4`, `1E3` and `.5e-3` are numbers (YAML 1.1 readers take them for text).
- Only true and false are booleans, only decimal and 0x numbers are integers, nothing becomes a date.
- A key given twice in one mapping is an error. Anchors and merge keys (`<<: *name`) work.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hv15.errors import UserError

Location = tuple[str | int, ...]
_MERGE = "tag:yaml.org,2002:merge"
_TEXT = "tag:yaml.org,2002:str"


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalar rules of the module docstring instead of YAML 1.1's."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (PyYAML's own class attribute: start without its rules)


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


@dataclass(frozen=True)
class YamlFile:
    """A parsed file: its values and, by location such as ("train", "learning_rate"), their places in the text."""

    path: Path
    data: dict[str, Any]
    node: yaml.MappingNode

    def position(self, location: Location, *, of_key: bool = False) -> tuple[int, int]:
        """Return line and column (from 1) of the value at a location, or of its key.

        When the location is not in the file (a missing key), it is that of the nearest mapping above it, named by its
        key.
        """
        node: yaml.Node = self.node
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
    """Read a YAML file whose top level is a mapping; `text` is read instead of the file's content, as if it were it.

    Raises:
        UserError: missing, unreadable, not UTF-8, not YAML (with line and column), keys given twice (all of them),
            empty, or something else than a mapping at the top.
    """
    text = _read_text(path) if text is None else text
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None or (isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null")):
            raise UserError(f"{path}: is empty", hint="`hv15 new FOLDER` writes a commented config.yaml to start from")
        if not isinstance(node, yaml.MappingNode):
            found = "a list" if isinstance(node, yaml.SequenceNode) else "text"
            raise UserError(f"{path}:1:1: found {found}, expected settings such as `task: t2v`")
        if wrong := sorted(set(_wrong_keys(node, set()))):
            raise UserError("\n".join(f"{path}:{line}:{column} {message}" for line, column, message in wrong))
        return YamlFile(path, loader.construct_document(node), node)
    except yaml.YAMLError as error:
        raise _not_yaml(path, error) from None


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        hint = "check the path, or make a project with `hv15 new FOLDER`"
        raise UserError(f"{path}: no such file", hint=hint) from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder", hint=f"name the file in it: {path / 'config.yaml'}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: is not UTF-8", hint="save the file as UTF-8 in your editor") from None


def _not_yaml(path: Path, error: yaml.YAMLError) -> UserError:
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark or error.context_mark):
        problem = (error.problem or "cannot be read").strip()
        if problem.startswith("but ") and error.context:
            problem = f"{error.context}, {problem}"
        tab = r"found character '\t'" in problem
        hint = "indent with spaces, not with tabs" if tab else "look at this line and the one above it"
        return UserError(f"{path}:{mark.line + 1}:{mark.column + 1}: is not YAML: {problem}", hint=hint)
    if isinstance(error, yaml.reader.ReaderError):
        return UserError(
            f"{path}: is not YAML: control character 0x{error.character:02x}, character {error.position} of the file"
        )
    return UserError(f"{path}: is not YAML: {error}")


def _wrong_keys(node: yaml.Node, seen: set[int]) -> Iterator[tuple[int, int, str]]:
    """Yield line, column and a message for each key that is not text, or that its mapping has already."""
    if id(node) in seen:  # an alias: its anchor was looked at
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for entry in node.value:
            yield from _wrong_keys(entry, seen)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            mark = key.start_mark
            if not isinstance(key, yaml.ScalarNode) or key.tag not in (_MERGE, _TEXT):
                name = key.value if isinstance(key, yaml.ScalarNode) else "the key"
                yield mark.line + 1, mark.column + 1, f"{name}: expected a name as key; if it is one, put it in quotes"
            elif key.tag == _TEXT:
                if key.value in lines:
                    yield (
                        mark.line + 1,
                        mark.column + 1,
                        f"{key.value}: is given twice, first in line {lines[key.value]}",
                    )
                lines.setdefault(key.value, mark.line + 1)
            yield from _wrong_keys(value, seen)


def _child(node: yaml.Node, part: str | int) -> tuple[yaml.Node | None, yaml.Node | None]:
    """Return the nodes of a key and its value in a mapping (merged keys were put first), or of a list's entry."""
    if isinstance(node, yaml.MappingNode):
        for key, value in reversed(node.value):
            if isinstance(key, yaml.ScalarNode) and key.value == str(part):
                return key, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return None, node.value[part]
    return None, None


def _is_leaf(node: yaml.Node) -> bool:
    """Whether a value stands on its key's line, so that its own place is the one to show."""
    return isinstance(node, yaml.ScalarNode) or bool(getattr(node, "flow_style", False))
