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
from hv15.records.paths import project_of
from hv15.records.problems import COMMAND_LINE, ConfigError, Location, Place, Problem, dotted

if TYPE_CHECKING:
    from hv15.config.prompt_files import PromptsFile
    from hv15.config.yaml_file import YamlFile

log = logging.getLogger(__name__)

PROMPTS = ("sample", "prompts")


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
    root = project_of(path).root
    origin = _Origin(source, replaced, root)
    origin.toml = _datasets_file(data.get("datasets"), origin)
    if origin.toml is not None:
        data["datasets"] = [*_read_datasets(origin.toml, root)]
    _add_prompts(data, origin)
    problems = [] if origin.prompts is None else origin.prompts.problems
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        problems = [*problems, *explain(error, Settings, data, origin.place)]
        raise ConfigError(sorted(problems, key=origin.order)) from None
    if problems:
        raise ConfigError(sorted(problems, key=origin.order))
    settings._root = root
    settings._prompt_places = origin.prompt_places
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
    prompts: PromptsFile | None = None
    """The file with the last prompts, if there is one."""
    own_prompts: int = 0
    """The number of prompts that stand in the config itself."""

    def place(self, location: Location, of_key: bool = False) -> Place:
        """Return the place of a setting, or of its key."""
        if self.toml is not None and location[:1] == ("datasets",):
            return Place(self.toml, setting=location)
        if self.prompts is not None and (number := self._in_prompts(location)) is not None:
            return self.prompts.place(number, location[3:], of_key=of_key)
        if any(location[:depth] in self.replaced for depth in range(1, len(location) + 1)):
            return Place(COMMAND_LINE, setting=location)
        return Place(self.yaml.path, *self.yaml.position(location, of_key=of_key), location)

    def _in_prompts(self, location: Location) -> int | None:
        """The number of the entry of the prompts' file that a location is in; None if it is elsewhere."""
        if location[:2] != PROMPTS or len(location) < 3 or not isinstance(number := location[2], int):
            return None
        return None if number < self.own_prompts else number - self.own_prompts

    @property
    def prompt_places(self) -> dict[int, Place]:
        """The places of the prompts that stand in a file of their own, by their numbers among all."""
        if self.prompts is None:
            return {}
        return {self.own_prompts + number: self.prompts.place(number) for number in range(len(self.prompts.entries))}

    def order(self, problem: Problem) -> tuple[int, int, int, str]:
        """Return a sort key for problems: those of the config by line, then the datasets' file, the command line."""
        place = problem.place
        prompts = None if self.prompts is None else self.prompts.path
        files = [self.yaml.path, self.toml, prompts, COMMAND_LINE]
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


def _add_prompts(data: JsonObject, origin: _Origin) -> None:
    """Put the entries of `sample.prompts_file` behind those of `sample.prompts`, and leave out the file's name.

    Raises:
        ConfigError: there is no such file, or something is wrong in it.
    """
    from hv15.config.prompt_files import read_prompts

    sample = data.get("sample")
    if not isinstance(sample, dict) or not isinstance(name := sample.get("prompts_file"), str):
        return
    own = sample.get("prompts", [])
    if not isinstance(own, list):  # which is an error
        return
    path = _existing_file(name, origin, ("sample", "prompts_file"), "a file of prompts (.yaml, .jsonl or .txt)")
    origin.prompts, origin.own_prompts = read_prompts(path, origin.root), len(own)
    data["sample"] = {**sample, "prompts_file": None, "prompts": [*own, *origin.prompts.entries]}


def _datasets_file(datasets: object, origin: _Origin) -> Path | None:
    """Return the dataset file that `datasets` names, or None if it is a list."""
    if not isinstance(datasets, str):
        return None
    as_list = f"; write a list: [{{video_directory: {datasets}}}]"
    wanted = "a dataset file (TOML or JSON) or a list of datasets"
    return _existing_file(datasets, origin, ("datasets",), wanted, as_list)


def _existing_file(name: str, origin: _Origin, setting: Location, wanted: str, instead: str = "") -> Path:
    """Return the file that a setting names.

    Args:
        wanted: what is expected there.
        instead: what to write if it is a folder.

    Raises:
        ConfigError: there is none.
    """
    try:
        path = origin.root / Path(expand_variables(name)).expanduser()
        if path.is_dir():
            raise ValueError(f"{name} is a folder{instead or f'; expected {wanted}'}")
        if not path.is_file():
            raise ValueError(f"there is no file {path}; expected {wanted}")
    except (ValueError, OSError) as error:
        found = of_the_system(error).message if isinstance(error, OSError) else str(error)
        raise ConfigError([Problem(found, place=origin.place(setting))]) from None
    return path


def _read_datasets(file: Path, root: Path) -> list[JsonObject]:
    """Read a musubi dataset file; settings that hv15 treats differently are adapted, with a warning."""
    from hv15.data.musubi import read_musubi

    found = read_musubi(file, root)
    for note in found.notes:
        log.warning("%s", note)
    return found.datasets
