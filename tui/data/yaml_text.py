"""Values as YAML text that hv15.config reads back as exactly these values."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hv15.config.yaml_file import YamlFile, read_yaml
from hv15.errors import UserError

INDENT = 2
_NOWHERE = Path("config.yaml")


def read(path: Path, text: str) -> YamlFile:
    """Read YAML text whose values are a tree that Python can write again.

    Raises:
        UserError: it is not YAML, nested too deep, has a number that cannot be read or a value that contains itself.
    """
    try:
        found = read_yaml(path, text)
        endless = _contains_itself(found.data, set(), set())
    except (ValueError, RecursionError) as error:
        raise unreadable(path, error) from None
    if endless:
        raise UserError(f"{path}: a value contains itself", hint="look at the anchors (&name) and aliases (*name)")
    return found


def unreadable(path: Path, error: ValueError | RecursionError) -> UserError:
    """Say what Python gave up on when it read YAML."""
    if isinstance(error, RecursionError):
        return UserError(f"{path}: is nested too deep", hint="look for brackets that are never closed")
    return UserError(f"{path}: a number cannot be read: {str(error).partition(';')[0]}")


def _contains_itself(value: Any, above: set[int], done: set[int]) -> bool:
    if not isinstance(value, dict | list) or id(value) in done:
        return False
    if id(value) in above:
        return True
    above.add(id(value))
    found = any(_contains_itself(each, above, done) for each in (value.values() if isinstance(value, dict) else value))
    above.remove(id(value))
    done.add(id(value))
    return found


def parse(text: str) -> Any:
    """Read one value as it would be read behind a key.

    Raises:
        UserError: it is not YAML.
    """
    return read(_NOWHERE, f"k: {text}\n").data["k"]


def scalar(value: Any, *, flow: bool = False, like: str = "") -> str:
    """Write a value in one line.

    Args:
        flow: whether it stands in brackets or braces.
        like: the text that it replaces, whose quotes are kept.
    """
    if isinstance(value, str):
        return _text(value, flow, like)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_text(str(k), True, '')}: {scalar(v, flow=True)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(scalar(each, flow=True) for each in value) + "]"
    return str(value)


def block(key: str, value: Any, indent: int, newline: str) -> str:
    """Write `key: value` as lines, the first one without its indent: it stands behind `indent` spaces already."""
    head = _text(key, False, "")
    if isinstance(value, Mapping) and value:
        inner = indent + INDENT
        return f"{head}:" + "".join(
            f"{newline}{' ' * inner}{block(str(name), each, inner, newline)}" for name, each in value.items()
        )
    if isinstance(value, list | tuple) and any(isinstance(each, Mapping) for each in value):
        inner = indent + INDENT
        return f"{head}:" + "".join(f"{newline}{' ' * inner}{entry(each, inner, newline)}" for each in value)
    return f"{head}: {scalar(value)}"


def entry(value: Any, indent: int, newline: str) -> str:
    """Write an entry of a list with its dash, which stands behind `indent` spaces."""
    if not isinstance(value, Mapping) or not value:
        return f"- {scalar(value)}"
    inner = indent + INDENT
    return "- " + f"{newline}{' ' * inner}".join(block(str(name), each, inner, newline) for name, each in value.items())


def _float(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"


def _text(value: str, flow: bool, like: str) -> str:
    if like.startswith("'") and value.isprintable():
        return "'" + value.replace("'", "''") + "'"
    if not like.startswith('"') and _is_plain(value, flow):
        return value
    return json.dumps(value, ensure_ascii=not value.replace("\n", "").replace("\t", "").isprintable())


def _is_plain(value: str, flow: bool) -> bool:
    """Whether the text without quotes is read as this text, also before a comment and between others."""
    if not value.strip() or "\n" in value or "\r" in value:
        return False
    around = f"k: [{value}, 1] # c\n" if flow else f"k: {value} # c\n"
    try:
        found = read(_NOWHERE, around).data
    except UserError:
        return False
    return bool(found == {"k": [value, 1] if flow else value})
