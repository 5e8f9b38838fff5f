"""Reads and checks a project's config, YAML plus overrides, and reports every problem with its location."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from hv15.config.problems import explain
from hv15.config.section import expand_variables
from hv15.config.settings import Settings
from hv15.errors import of_the_system
from hv15.records.json_values import Json, JsonObject
from hv15.records.problems import COMMAND_LINE, ConfigError, Location, Place, Problem, dotted

if TYPE_CHECKING:
    from hv15.config.yaml_file import YamlFile

log = logging.getLogger(__name__)


def load_config(path: Path, overrides: Mapping[str, Json] | None = None, *, text: str | None = None) -> Settings:
    """Read config.yaml, apply `overrides` (nested mappings are merged, lists replaced), and check everything.

    With `text`, that is used instead of the file's content.

    Raises:
        ConfigError: with all problems, sorted by place, such as `config.yaml:24:17 train.learning_rate: ...`, or
            `--config train.learning_rate: ...` for an override.
    """
    from hv15.config.yaml_file import read_yaml

    path = Path(path)
    source = read_yaml(path, text)
    replaced: set[Location] = set()
    data = _merge(source.data, overrides or {}, (), replaced)
    root = path.absolute().parent
    origin = _Origin(source, replaced, root)
    origin.toml = _datasets_file(data.get("datasets"), origin)
    if origin.toml is not None:
        data["datasets"] = [*_read_datasets(origin.toml, root)]
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        raise ConfigError(sorted(explain(error, Settings, data, origin.place), key=origin.order)) from None
    settings._root = root
    return settings


@dataclass
class _Origin:
    """The sources of the settings."""

    yaml: YamlFile
    replaced: set[Location]
    """The settings from the command line."""
    root: Path
    toml: Path | None = None
    """The file with the datasets, if it is not the config itself."""

    def place(self, location: Location, of_key: bool = False) -> Place:
        """Return the place of a setting, or of its key."""
        if self.toml is not None and location[:1] == ("datasets",):
            return Place(self.toml, setting=location)
        if any(location[:depth] in self.replaced for depth in range(1, len(location) + 1)):
            return Place(COMMAND_LINE, setting=location)
        return Place(self.yaml.path, *self.yaml.position(location, of_key=of_key), location)

    def order(self, problem: Problem) -> tuple[int, int, int, str]:
        """Return a sort key for problems: those of the config by line, then the datasets' file, the command line."""
        place = problem.place
        files = [self.yaml.path, self.toml, COMMAND_LINE]
        return files.index(place.file), place.line or 0, place.column or 0, dotted(place.setting)


def _merge(base: Mapping[str, Json], over: Mapping[str, Json], at: Location, replaced: set[Location]) -> JsonObject:
    """Return `base` updated with the values of `over`, and add their locations to `replaced`."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and (isinstance(below, Mapping) or (below is None and key in merged)):
            merged[key] = _merge(below or {}, value, (*at, key), replaced)
        else:
            merged[key] = value
            replaced.add((*at, key))
    return merged


def _datasets_file(datasets: object, origin: _Origin) -> Path | None:
    """Return the dataset file that `datasets` names, or None if it is a list."""
    if not isinstance(datasets, str):
        return None
    try:
        path = origin.root / Path(expand_variables(datasets)).expanduser()
        if path.is_dir():
            raise ValueError(f"{datasets} is a folder; write a list: [{{video_directory: {datasets}}}]")
        if not path.is_file():
            raise ValueError(f"there is no file {path}; expected a dataset file (TOML or JSON) or a list of datasets")
    except (ValueError, OSError) as error:
        found = of_the_system(error).message if isinstance(error, OSError) else str(error)
        raise ConfigError([Problem(found, place=origin.place(("datasets",)))]) from None
    return path


def _read_datasets(file: Path, root: Path) -> list[JsonObject]:
    """Read a musubi dataset file; settings that hv15 treats differently are adapted, with a warning."""
    from hv15.data.musubi import read_musubi

    found = read_musubi(file, root)
    for note in found.notes:
        log.warning("%s", note)
    return found.datasets
