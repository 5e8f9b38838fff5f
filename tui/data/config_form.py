"""All settings as fields of a form, made from the models: allowed values, value and default of each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import EllipsisType
from typing import Literal

from pydantic.json_schema import JsonSchemaValue

from hv15.config import FieldInfo, Section, Settings
from hv15.config.fields import own_fields, schema_of, section_of
from hv15.config.section import Affects
from hv15.records.json_values import Json, JsonObject
from hv15.records.problems import Location, dotted

FieldKind = Literal["bool", "int", "float", "choice", "text", "path", "list", "mapping"]


@dataclass(frozen=True)
class FormField:
    """One setting."""

    location: Location
    path: str
    """As users write it: datasets[0].resolution."""
    name: str
    kind: FieldKind
    type: str
    """Which values it takes, in words."""
    choices: tuple[str, ...]
    optional: bool
    """Whether it may be left empty."""
    default: Json | EllipsisType = field(hash=False)
    """`...` when it must be given."""
    default_text: str = ""
    value: Json = field(hash=False, default=None)
    """What the file says, else the default."""
    text: str = ""
    """The value as it is typed."""
    in_file: bool = False
    """Whether it is set in the file."""
    changed: bool = False
    """Whether it differs from the default."""
    help: str = ""
    affects: Affects | None = None
    """See `hv15.config.fields.FieldInfo`."""
    problem: str = ""

    def matches(self, words: str) -> bool:
        """Whether all words are in its name or help."""
        where = f"{self.path} {self.help}".lower()
        return all(word in where for word in words.lower().split())


@dataclass(frozen=True)
class FormSection:
    """A heading with its fields."""

    location: Location
    title: str
    help: str
    fields: tuple[FormField, ...]
    is_entry: bool
    """Whether it is an entry of a list, which can be removed."""


@dataclass(frozen=True)
class FormList:
    """A list whose entries are sections, and what a new entry begins with."""

    location: Location
    title: str
    entry: str
    start: dict[str, Json] = field(hash=False)


LISTS = (
    FormList(("datasets",), "datasets", "dataset", {"video_directory": "clips", "target_frames": [25]}),
    FormList(("sample", "prompts"), "sample.prompts", "prompt", {"name": "new", "prompt": "what is to be seen"}),
    FormList(("sample", "loras"), "sample.loras", "LoRA", {"path": "other.safetensors"}),
)


def form(
    data: JsonObject, literals: Mapping[Location, str], problems: Mapping[Location, str]
) -> tuple[FormSection, ...]:
    """Return all sections with their fields.

    Args:
        data: the values of the file.
        literals: how numbers are written in it.
        problems: what is wrong with a setting, by its location, which may lie inside a value.
    """
    sources = _Sources(literals, problems)
    return tuple(_sections(Settings, data, (), "Project", "What the LoRA is for.", False, None, sources))


@dataclass(frozen=True)
class _Sources:
    literals: Mapping[Location, str]
    problems: Mapping[Location, str]

    def problem(self, location: Location) -> str:
        """What is wrong with a value or with something in it."""
        found = (text for at, text in self.problems.items() if at[: len(location)] == location)
        return "; ".join(found)


def _sections(
    model: type[Section],
    data: Json,
    at: Location,
    title: str,
    text: str,
    is_entry: bool,
    mark: Affects | None,
    sources: _Sources,
) -> Iterator[FormSection]:
    """Yield a section and those in it; `mark` is that of all its settings (`FieldInfo.mark_below`)."""
    values = data if isinstance(data, dict) else {}
    own: list[FormField] = []
    below: list[Iterator[FormSection]] = []
    for info in own_fields(model, mark=mark):
        name = info.path
        section: type[Section] | None = section_of(model.model_fields[name].annotation)
        value, place = values.get(name), (*at, name)
        if section is None or isinstance(value, str):  # a string: the path of a dataset TOML
            own.append(_field(model, info, place, name in values, value, sources))
        elif _is_one(model, name):
            below.append(_sections(section, value, place, dotted(place), info.doc, False, info.mark_below, sources))
        else:
            entries = value if isinstance(value, list) else []
            for number, entry in enumerate(entries):
                inner = (*place, number)
                title_of = dotted(inner)
                below.append(_sections(section, entry, inner, title_of, info.doc, True, info.mark_below, sources))
    if own:
        yield FormSection(at, title, text, tuple(own), is_entry)
    for each in below:
        yield from each


def _is_one(model: type[Section], name: str) -> bool:
    """Whether a field is a section itself and not a list of them."""
    annotation = model.model_fields[name].annotation
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _field(
    model: type[Section], info: FieldInfo, at: Location, in_file: bool, value: Json, sources: _Sources
) -> FormField:
    kind, choices, optional = kind_of(schema_of(model)["properties"][info.path])
    effective: Json = value if in_file else None if info.default is ... else info.default
    return FormField(
        location=at,
        path=dotted(at),
        name=info.path,
        kind=kind,
        type=info.type,
        choices=choices,
        optional=optional,
        default=info.default,
        default_text=info.default_text,
        value=effective,
        text=(in_file and sources.literals.get(at)) or typed(effective),
        in_file=in_file,
        changed=in_file and not _same(value, info.default),
        help=info.doc,
        affects=info.affects,
        problem=sources.problem(at),
    )


def kind_of(schema: JsonSchemaValue) -> tuple[FieldKind, tuple[str, ...], bool]:
    """Return kind, choices (of text: some of what it may be), and whether it may be null, of a field's JSON schema."""
    parts = schema.get("anyOf") or [schema]
    optional = any(part.get("type") == "null" for part in parts)
    parts = [part for part in parts if part.get("type") != "null"]
    choices = [value for part in parts for value in part.get("enum", [part["const"]] if "const" in part else [])]
    if choices and len(choices) == sum(len(part.get("enum", ["const"])) for part in parts):
        return "choice", tuple(typed(choice) for choice in choices), optional
    kinds: dict[str, FieldKind] = {
        "array": "list",
        "object": "mapping",
        "boolean": "bool",
        "number": "float",
        "integer": "int",
    }
    found = {"path" if part.get("format") == "path" else str(part.get("type")) for part in parts}
    for name, kind in kinds.items():
        if name in found:
            return kind, ("true", "false") if kind == "bool" else (), optional
    return "path" if "path" in found else "text", tuple(map(typed, choices)), optional


def typed(value: Json) -> str:
    """A value as a person types it into a field."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def _same(value: Json, default: Json | EllipsisType) -> bool:
    if isinstance(default, list) and isinstance(value, list):
        return len(value) == len(default) and all(map(_same, value, default))
    if isinstance(value, bool) != isinstance(default, bool):
        return False
    return bool(value == default)
