"""Values as YAML text that hv15.config reads back as exactly these values."""

from __future__ import annotations

import json
import math
from pathlib import Path

from hv15.config.yaml_file import read_yaml
from hv15.errors import UserError
from hv15.records.json_values import Json

INDENT = 2
_NOWHERE = Path("config.yaml")


def parse(text: str) -> Json:
    """Read one value as it would be read after a key.

    Raises:
        UserError: it is not YAML.
    """
    return read_yaml(_NOWHERE, f"k: {text}\n").data["k"]


def scalar(value: Json, *, flow: bool = False, like: str = "") -> str:
    """Write a value in one line.

    Args:
        flow: whether it is inside brackets or braces.
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
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(str(k), True, '')}: {scalar(v, flow=True)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(scalar(each, flow=True) for each in value) + "]"
    return str(value)


def block(key: str, value: Json, indent: int, newline: str) -> str:
    """Write `key: value` as lines, the first one without its indent: `indent` spaces are there already."""
    head = _text(key, False, "")
    if isinstance(value, dict) and value:
        inner = indent + INDENT
        return f"{head}:" + "".join(
            f"{newline}{' ' * inner}{block(str(name), each, inner, newline)}" for name, each in value.items()
        )
    if isinstance(value, list) and any(isinstance(each, dict) for each in value):
        inner = indent + INDENT
        return f"{head}:" + "".join(f"{newline}{' ' * inner}{entry(each, inner, newline)}" for each in value)
    return f"{head}: {scalar(value)}"


def entry(value: Json, indent: int, newline: str) -> str:
    """Write an entry of a list with its dash, which follows `indent` spaces."""
    if not isinstance(value, dict) or not value:
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
        found = read_yaml(_NOWHERE, around).data
    except UserError:
        return False
    return bool(found == {"k": [value, 1] if flow else value})
