"""Lists all settings with their help, from the models, for --help, the dashboard and the docs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from inspect import cleandoc
from types import EllipsisType
from typing import get_args

from pydantic.json_schema import JsonSchemaValue
from pydantic_core import to_jsonable_python

from hv15.config.after_edit import after_edit
from hv15.config.section import AFFECTS, Affects, Section, demands
from hv15.records.json_values import Json, JsonObject
from hv15.records.paths import EncodedKind

NOT_SET = "not set"
"""The text for a default of None."""

_IN_DIGESTS = (None, Affects.PAST, Affects.NETWORK, Affects.FUTURE, Affects.LENGTH)
"""What settings that affect the result are marked with."""
_FAR = 2**31  # larger limits have no practical meaning and are not shown


@dataclass(frozen=True)
class FieldInfo:
    """The properties of one setting; `path` is such as train.learning_rate or datasets[].resolution."""

    path: str
    type: str
    """The accepted values, in words."""
    default: Json | EllipsisType
    """The default as a JSON value; `...` if the setting is required."""
    doc: str
    """Its help in one line of plain text."""
    is_section: bool
    """Whether it is a section with its own settings."""
    affects: Affects | None
    """Its mark, or that of the section that it is in; None if it has nothing to do with a training."""

    @property
    def default_text(self) -> str:
        """The default as written in YAML; "required" if there is none, "" for sections."""
        if self.default is ...:
            return "required"
        if isinstance(self.default, dict) and self.is_section:
            return ""
        return NOT_SET if self.default is None else json.dumps(self.default, ensure_ascii=False)

    @property
    def after_edit(self) -> str:
        """What an edit does to a training, in words; "" if it has nothing to do with one."""
        return after_edit(self.affects)

    @property
    def mark_below(self) -> Affects | None:
        """The mark of all settings in it, if it is a section; None if they have their own."""
        return None if self.affects == Affects.APART else self.affects


def fields(model: type[Section], prefix: str = "", mark: Affects | None = None) -> Iterator[FieldInfo]:
    """Yield all settings of a section in order, each section in it before its settings.

    Args:
        mark: that of all of them (`FieldInfo.mark_below`).
    """
    for info, field in zip(own_fields(model, prefix, mark), model.model_fields.values(), strict=True):
        yield info
        below = section_of(field.annotation)
        if below is not None:
            inside = f"{info.path}." if field.annotation is below else f"{info.path}[]."
            yield from fields(below, inside, info.mark_below)


def own_fields(model: type[Section], prefix: str = "", mark: Affects | None = None) -> Iterator[FieldInfo]:
    """Yield the settings of a section itself, without those of the sections in it.

    Args:
        mark: that of all of them (`FieldInfo.mark_below`).
    """
    schema = schema_of(model)
    for name, field in model.model_fields.items():
        yield FieldInfo(
            path=f"{prefix}{name}",
            type=type_text(schema["properties"][name], schema.get("$defs", {})),
            default=... if field.is_required() else to_jsonable_python(field.get_default(call_default_factory=True)),
            doc=" ".join(cleandoc(field.description or "").split()),
            is_section=section_of(field.annotation) is not None,
            affects=mark or affects(model, name),
        )


@cache
def schema_of(model: type[Section]) -> JsonSchemaValue:
    """Return the JSON schema of a section, cached because making it takes some milliseconds."""
    return model.model_json_schema()


def section_of(annotation: object) -> type[Section] | None:
    """Return the section in a field's annotation, which is the section or a list of it; None if there is none."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((found for part in get_args(annotation) if (found := section_of(part)) is not None), None)


def affects(model: type[Section], name: str) -> Affects | None:
    """Return what a field is marked to affect; None without a mark."""
    mark = _mark(model, name, AFFECTS)
    return Affects(mark) if isinstance(mark, str) else None


def digest_view(section: Section) -> JsonObject:
    """Return a section as JSON without settings that do not affect the result: speed, memory, locations of files.

    A setting is included unless it is marked. One that is used only with certain values of others (`only_with`) is
    included only if they have such values, and one that is marked so (`UNLESS_DEFAULT`) only if it is not the default.
    """
    return {
        name: _view(getattr(section, name), value)
        for name, value in section.model_dump(mode="json").items()
        if affects(type(section), name) in _IN_DIGESTS and _is_read(section, name)
    }


def encoding_view(section: Section, kind: EncodedKind) -> JsonObject:
    """Return the part of `digest_view` that affects encoded items of one kind: all that is not marked for the other."""
    return {
        name: value
        for name, value in digest_view(section).items()
        if _mark(type(section), name, "encodes") in (None, kind)
    }


def marked_view(section: Section, mark: Affects) -> JsonObject:
    """Return the settings of a section that have a mark; one that is in no digest at its default is then left out."""
    dumped = section.model_dump(mode="json")
    return {
        name: value
        for name, value in dumped.items()
        if affects(type(section), name) == mark and not _is_left_out(section, name)
    }


def _is_read(section: Section, name: str) -> bool:
    """Whether a setting has an effect that is not the default's: not if it is for another choice (`only_with`)."""
    if _is_left_out(section, name):
        return False
    either = demands(type(section), name)
    return not either or any(
        all(getattr(section, other) in choices for other, choices in each.items()) for each in either
    )


def _is_left_out(section: Section, name: str) -> bool:
    """Whether a setting has its default and is in no digest then (`UNLESS_DEFAULT`)."""
    field = type(section).model_fields[name]
    is_default = getattr(section, name) == field.get_default(call_default_factory=True)
    return is_default and _mark(type(section), name, "in_digests") is not None


def _mark(model: type[Section], name: str, mark: str) -> object:
    extra = model.model_fields[name].json_schema_extra
    return extra.get(mark) if isinstance(extra, dict) else None


def help_text(model: type[Section], prefix: str = "") -> str:
    """Return the help of all settings whose path begins with `prefix`, as text for a terminal."""
    blocks = []
    for field in fields(model):
        if not field.path.startswith(prefix):
            continue
        default = f"; default {field.default_text}" if field.default_text not in ("", "required") else ""
        title = field.path if field.is_section else f"{field.path}  ({field.type}{default or '; required'})"
        effect = f"\n    ({field.after_edit})" if field.after_edit else ""
        blocks.append(f"{title}\n    {field.doc}{effect}")
    return "\n".join(blocks)


def type_text(schema: JsonSchemaValue, definitions: JsonSchemaValue) -> str:
    """Return, in words, the values that a JSON schema accepts."""
    if "$ref" in schema:
        return "settings"
    if "anyOf" in schema:
        return " or ".join(type_text(part, definitions) for part in schema["anyOf"] if part.get("type") != "null")
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(str(value) for value in schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        parts = schema.get("prefixItems")
        return f"list of {len(parts)}: {type_text(parts[0], definitions)}" if parts else _list_text(schema, definitions)
    if kind == "object":
        return "mapping of name: value"
    if schema.get("format") == "path":
        return "path"
    return {"integer": "whole number", "number": "number", "boolean": "true or false"}.get(str(kind), "text") + _range(
        schema
    )


def _list_text(schema: JsonSchemaValue, definitions: JsonSchemaValue) -> str:
    return f"list of {type_text(schema['items'], definitions)}" if "items" in schema else "list"


def _range(schema: JsonSchemaValue) -> str:
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    limits = [f"{word} {schema[key]:g}" for key, word in words.items() if schema.get(key, _FAR) < _FAR]
    limits += [f"in steps of {schema['multipleOf']}"] if "multipleOf" in schema else []
    return " " + " ".join(limits) if limits else ""


def _view(value: object, dumped: Json) -> Json:
    if isinstance(value, Section):
        return digest_view(value)
    if isinstance(value, tuple) and isinstance(dumped, list):
        return [_view(entry, entry_dumped) for entry, entry_dumped in zip(value, dumped, strict=True)]
    return dumped
