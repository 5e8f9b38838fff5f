"""The settings of notices: the project's, and for what it does not set those of the user, for all projects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from hv15.config.notify import NotifySettings
from hv15.config.problems import Find, explain
from hv15.config.yaml_file import YamlFile, read_yaml
from hv15.errors import UserError
from hv15.notices.mentioned import SECTION, users_file
from hv15.records.json_values import Json, JsonObject
from hv15.records.problems import ConfigError, Location, Place, Problem

PLACES = (
    ("ntfy", "ntfy_token_env"),
    ("webhook", "webhook_format", "webhook_token_env"),
)
"""Settings that belong together: a project with a place of its own does not send it the user's token."""


def notify_settings(config: Path | None, overrides: Mapping[str, Json] | None = None) -> NotifySettings:
    """Return the settings of a project's notices; the rest of its config may be wrong.

    Args:
        config: the config file; None or a missing one for the user's settings alone.
        overrides: settings that override those of the file.

    Raises:
        ConfigError: something in the section, or in the user's file, is wrong.
    """
    own, own_place = _section_of(config, overrides)
    users, users_place = _users_settings()
    _validated(users, users_place)
    joined = {**_without_replaced(users, own), **own}

    def place(setting: Location, of_key: bool) -> Place:
        return own_place(setting, of_key) if setting[:1] and setting[0] in own else users_place(setting, of_key)

    return _validated(joined, place)


def lenient_settings(config: Path, overrides: Mapping[str, Json] | None = None) -> tuple[NotifySettings, list[str]]:
    """Return the same for a run that goes on whatever is wrong in them, and what is wrong.

    Then the user's settings count, or else those of the project.
    """
    problems = list[str]()
    for file, own in ((config, overrides), (None, None)):
        try:
            return notify_settings(file, own), problems
        except (UserError, OSError) as error:
            problems.append(str(error).splitlines()[0])
    try:
        own_section, place = _section_of(config, overrides)
        return _validated(own_section, place), problems
    except (UserError, OSError):
        return NotifySettings(), problems


def _section_of(config: Path | None, overrides: Mapping[str, Json] | None) -> tuple[JsonObject, PlaceOf]:
    """The project's own section, and where its settings are."""
    over = (overrides or {}).get(SECTION)
    given = dict(over) if isinstance(over, dict) else {}
    if config is None or not config.is_file():
        return given, PlaceOf(None, (SECTION,))
    file = read_yaml(config)
    found = file.data.get(SECTION)
    if found is not None and not isinstance(found, dict):
        place = Place(config, *file.position((SECTION,)), (SECTION,))
        raise ConfigError([Problem("expected a mapping of settings", place=place)])
    return {**(found or {}), **given}, PlaceOf(file, (SECTION,))


def _users_settings() -> tuple[JsonObject, PlaceOf]:
    """What the user's file says, either as it is or below `notify:` as in a config, and where."""
    path = users_file()
    if path is None or not path.is_file():
        return {}, PlaceOf(None, ())
    file = read_yaml(path)
    below = file.data.get(SECTION)
    if isinstance(below, dict) and len(file.data) == 1:
        return below, PlaceOf(file, (SECTION,))
    return file.data, PlaceOf(file, ())


class PlaceOf:
    """Where a setting stands: in a file, below a section of it."""

    def __init__(self, file: YamlFile | None, section: Location) -> None:
        self._file, self._section = file, section

    def __call__(self, setting: Location, of_key: bool) -> Place:
        location = (*self._section, *setting)
        if self._file is None:
            return Place(setting=location)
        return Place(self._file.path, *self._file.position(location, of_key=of_key), location)


def _without_replaced(users: JsonObject, own: JsonObject) -> JsonObject:
    """The user's settings without those of a place that the project sets itself."""
    replaced = {name for group in PLACES if group[0] in own for name in group}
    return {name: value for name, value in users.items() if name not in replaced}


def _validated(data: JsonObject, place: Find) -> NotifySettings:
    try:
        return NotifySettings.model_validate(data)
    except ValidationError as error:
        raise ConfigError(explain(error, NotifySettings, data, place)) from None
