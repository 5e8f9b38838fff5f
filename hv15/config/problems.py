"""Explains pydantic's validation errors in one plain sentence for each setting."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence, Sized

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from hv15.config.fields import section_of
from hv15.config.section import Section
from hv15.records.problems import Location, Place, Problem

_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping of name: value",
    "model": "a mapping of settings",
}
_ELSEWHERE = {
    "cache_directory": "all datasets are cached in cache.directory",
    "control_directory": "clips are trained without control pictures",
    "control_path": "clips are trained without control pictures",
}
MOST = 200
"""Errors that are explained: each unknown key is compared with all that are known."""
_LIMITS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}


Find = Callable[[Location, bool], Place]
"""Returns the place of a setting's value or, if the second argument is true, of its key."""


def explain(error: ValidationError, model: type[Section], data: object, find: Find) -> list[Problem]:
    """Turn a validation error into one problem per setting; the alternatives of a union are joined into one sentence.

    Args:
        data: the data that was validated.
        model: the model that validated it, for suggestions of similar keys.
        find: returns the place of a setting.
    """
    grouped: dict[Location, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False)[:MOST]:
        if not _is_echo(details):
            grouped.setdefault(_real_location(details, data), []).append(details)
    return [
        Problem(_message(location, found, model), place=find(location, _is_about_key(found)))
        for location, found in grouped.items()
    ]


def nearest(word: str, choices: Sequence[str], cutoff: float = 0.6) -> str:
    """Return "; did you mean 'x'?" for the most similar choice, or ""."""
    folded = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(word.lower(), list(folded), n=1, cutoff=cutoff)
    return f"; did you mean '{folded[close[0]]}'?" if close else ""


def _is_echo(details: ErrorDetails) -> bool:
    """Whether a list is reported as too short only because of its invalid entries, each of which has its own error."""
    value = details["input"]
    return details["type"] == "too_short" and isinstance(value, Sized) and len(value) >= details["ctx"]["min_length"]


def _is_about_key(found: list[ErrorDetails]) -> bool:
    return found[0]["type"] == "extra_forbidden"


def _real_location(details: ErrorDetails, data: object) -> Location:
    """Remove the names of union alternatives, which pydantic puts between the keys of the data."""
    real: list[str | int] = []
    for index, part in enumerate(details["loc"]):
        last = index == len(details["loc"]) - 1
        if isinstance(data, Mapping) and (part in data or (last and details["type"] in ("missing", "cross_field"))):
            real.append(part)
            data = data.get(part)
        elif isinstance(data, Sequence) and not isinstance(data, str) and isinstance(part, int) and part < len(data):
            real.append(part)
            data = data[part]
    return tuple(real)


def _message(location: Location, found: list[ErrorDetails], model: type[Section]) -> str:
    first = found[0]
    if _is_about_key(found):
        return "unknown key" + _known_key(location, model)
    own_words = [details for details in found if details["type"] in ("value_error", "cross_field", "unexpected_bool")]
    if own_words:
        return _sentence(own_words[0])
    expected = list(dict.fromkeys(text for details in found if (text := _expected(details)) is not None))
    if not expected:
        return _sentence(first)
    choices = [str(choice) for details in found for choice in _choices(details)]
    guess = nearest(first["input"], choices, cutoff=0.5) if isinstance(first["input"], str) else ""
    if "a number" in expected and "a whole number" in expected:
        expected.remove("a whole number")
    quotes = "" if expected != ["text"] else " (put it in quotes)"
    return f"found {_show(first['input'])}, expected {' or '.join(expected)}{quotes}{guess}"


def _sentence(details: ErrorDetails) -> str:
    if details["type"] == "value_error":
        return str(details["ctx"]["error"])
    if details["type"] == "missing":
        return "has too few entries" if isinstance(details["loc"][-1], int) else "is missing"
    return details["msg"][0].lower() + details["msg"][1:]


def _expected(details: ErrorDetails) -> str | None:
    """Return what was expected instead, for errors about one value."""
    kind, context = details["type"], details.get("ctx", {})
    if kind in _LIMITS:
        key, words = _LIMITS[kind]
        return f"{words} {context[key]:g}"
    if kind == "literal_error":
        return "one of " + ", ".join(_choices(details)) if len(_choices(details)) > 1 else _choices(details)[0]
    if kind == "string_too_short":
        return "some text"
    if kind == "too_short":
        return _entries("at least", context["min_length"])
    if kind == "too_long":
        return _entries("at most", context["max_length"])
    stem = kind.removesuffix("_parsing").removesuffix("_type").removesuffix("_from_float").removesuffix("_attributes")
    return _EXPECTED.get(stem)


def _entries(limit: str, count: int) -> str:
    return f"{limit} {count} entr{'y' if count == 1 else 'ies'}"


def _choices(details: ErrorDetails) -> list[str]:
    """Return the choices of a literal, from pydantic's "'a', 'b' or 'c'"."""
    if details["type"] != "literal_error":
        return []
    words = details["ctx"]["expected"].replace(" or ", ", ").split(", ")
    return [word.strip("'") for word in words]


def _known_key(location: Location, model: type[Section]) -> str:
    """Suggest the key that was probably intended, or the section to which this key belongs."""
    key = str(location[-1])
    if key in _ELSEWHERE:
        return f"; {_ELSEWHERE[key]}"
    here: type[Section] | None = model
    for part in location[:-1]:
        if here is not None and isinstance(part, str):
            here = section_of(here.model_fields[part].annotation) if part in here.model_fields else None
    guess = nearest(key, list(here.model_fields)) if here is not None else ""
    elsewhere = [
        name
        for name, field in model.model_fields.items()
        if (section := section_of(field.annotation)) is not None and section is not here and key in section.model_fields
    ]
    return f"; it belongs to {' or '.join(elsewhere)}" if elsewhere else guess


def _show(value: object) -> str:
    """Return a short text of a found value, as in YAML."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "a list" if len(value) > 4 or any(isinstance(each, list | dict) for each in value) else str(list(value))
    text = str(value)
    return f"'{text[:60]}...'" if len(text) > 60 else f"'{text}'" if isinstance(value, str) else text
