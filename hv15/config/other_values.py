"""Settings with other values of some of them, before they are checked: of the command line, of an experiment."""

from __future__ import annotations

from collections.abc import Mapping

from hv15.records.json_values import Json, JsonObject
from hv15.records.problems import Location


def merged(base: Mapping[str, Json], over: Mapping[str, Json], at: Location, replaced: set[Location]) -> JsonObject:
    """Return `base` updated with the values of `over`, and add their locations to `replaced`."""
    found = dict(base)
    for key, value in over.items():
        below = found.get(key)
        if isinstance(value, Mapping) and (isinstance(below, Mapping) or (below is None and key in found)):
            found[key] = merged(below or {}, value, (*at, key), replaced)
        else:
            found[key] = value
            replaced.add((*at, key))
    return found


def with_value(data: Json, setting: Location, value: Json) -> Json:
    """Return a copy of settings with another value of one; a mapping is merged into one that is there.

    Raises:
        LookupError: the setting is in a list that has no such entry.
    """
    if not setting:
        return {**data, **value} if isinstance(data, dict) and isinstance(value, dict) else value
    key, below = setting[0], setting[1:]
    if isinstance(key, str):
        inside = data if isinstance(data, dict) else {}
        return {**inside, key: with_value(inside.get(key), below, value)}
    entries = data if isinstance(data, list) else []
    if key >= len(entries):
        size = "1 entry" if len(entries) == 1 else f"{len(entries)} entries"
        raise LookupError(f"there is no entry [{key}]: the list that the config has there has {size}")
    return [*entries[:key], with_value(entries[key], below, value), *entries[key + 1 :]]
