"""How two specs differ, in the words of the config: `train.network_dim 4 -> 8`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from hv15.records.json_values import Json, JsonObject

LONGEST = 60
"""Characters of a value that are shown."""
MOST_NAMED = 5
"""The most clips or captions of a stage that are named."""


def differences(
    old: Mapping[str, Json], new: Mapping[str, Json], names: Mapping[str, str], at: str = ""
) -> Iterator[str]:
    """Yield one line for each setting whose value differs, in the order of the new spec.

    Args:
        names: what a field is called in the config, by its dotted path; "" leaves it out; a sentence that ends with a
            full stop replaces the whole line, for values that are only digests.
    """
    for key in [*new, *(key for key in old if key not in new)]:
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        path = f"{at}.{key}" if at else key
        name = names.get(path, path)
        if name.endswith("."):
            yield name.removesuffix(".")
        elif isinstance(before, dict) and isinstance(after, dict) and path not in names:
            yield from differences(before, after, names, path)
        elif name:
            yield f"{name} {_show(before)} -> {_show(after)}"


def _show(value: Json) -> str:
    if value is None:
        return "not set"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = f"'{text}'" if isinstance(value, str) and (" " in text or not text) else text
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def change_of_settings(old: JsonObject, new: JsonObject, kind: str) -> list[str]:
    """How the settings of an encoding differ; models and format numbers as sentences."""
    names = {key: f"another file for {key}." for key in {*old, *new} if key.startswith("models.")}
    names["format"] = f"hv15 encodes {kind} in a new way."
    both = {key: value for key, value in new.items() if key in old}
    # A setting that only one of them has depends on another one that differs, which is reported.
    return list(differences({key: old[key] for key in both}, both, names)) or list(differences(old, new, names))


def first_few(names: Sequence[str], words: str) -> Iterator[str]:
    """One line for each of the first names; the others are counted."""
    for name in names[:MOST_NAMED]:
        yield words.format(name)
    if len(names) > MOST_NAMED:
        yield f"... and {len(names) - MOST_NAMED} more"
