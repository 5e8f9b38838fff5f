"""The settings of a training for a page, those first that differ from the defaults."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from types import EllipsisType

from hv15.config import FieldInfo, Settings, fields
from hv15.records.json_values import Json, JsonObject
from hv15.records.problems import Location, dotted
from hv15.report.private import without_folders

SECTIONS = ("task", "models", "datasets", "cache", "train")
"""What a training reads."""


@dataclass(frozen=True)
class SettingRow:
    """One setting."""

    name: str
    """Such as `train.learning_rate`."""
    value: str
    default: str
    """"" if it has none."""
    help: str
    differs: bool
    """Whether it has not its default."""


def setting_rows(config: JsonObject, *, tells_all: bool) -> list[SettingRow]:
    """Return the settings of a training, in the order of the config.

    Args:
        config: the whole config, as a LoRA tells it.
        tells_all: whether paths are shown as they are.
    """
    known = {field.path: field for field in fields(Settings)}
    told = config if tells_all else without_folders(config)
    rows = []
    for name in SECTIONS:
        if isinstance(told, dict) and name in told:
            rows += [_row(place, value, known) for place, value in _values(told[name], (name,), known)]
    return rows


def _values(value: Json, place: Location, known: dict[str, FieldInfo]) -> Iterator[tuple[Location, Json]]:
    """Yield each setting; lists and mappings that are one setting are yielded as a whole."""
    field = known.get(_path(place))
    if isinstance(value, dict) and (field is None or field.is_section):
        for name, inner in value.items():
            yield from _values(inner, (*place, name), known)
    elif isinstance(value, list) and field is not None and field.is_section:
        for number, inner in enumerate(value):
            yield from _values(inner, (*place, number), known)
    else:
        yield place, value


def _path(place: Location) -> str:
    """Return the path of a setting's field: `datasets[].resolution`."""
    return "".join("[]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def _row(place: Location, value: Json, known: dict[str, FieldInfo]) -> SettingRow:
    field = known.get(_path(place))
    default: Json | EllipsisType = ... if field is None else field.default
    shown = "" if isinstance(default, EllipsisType) else _text(default)
    return SettingRow(dotted(place), _text(value), shown, "" if field is None else field.doc, _differs(value, default))


def _differs(value: Json, default: Json | EllipsisType) -> bool:
    """Whether a value is not the default; patterns in order are told as a list, and none of them as an empty one."""
    return value != default and not (value == [] and default == {})


def _text(value: Json) -> str:
    if value is None:
        return "not set"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
