"""Reads and checks a project's config, YAML plus overrides, and reports every problem with its location."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from hv15.config.experiments import (
    Experiment,
    experiment_conflicts,
    named_experiments,
    readable_parts,
    samples_of_values,
    swept_experiments,
)
from hv15.config.other_values import merged, with_value
from hv15.config.problems import explain, nearest
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
OF_SETTING = 3
"""The least parts of the place of a setting of an experiment: ("experiments", "fast", "train.seed")."""
MOST_LISTED = 10
"""The most experiments that a message lists."""


def load_config(
    path: Path, overrides: Mapping[str, Json] | None = None, *, text: str | None = None, experiment: str = ""
) -> Settings:
    """Read config.yaml, apply `overrides` (nested mappings are merged, lists replaced), and check everything.

    With `text`, that is used instead of the file's content. With `experiment`, the settings are those of that one.

    Raises:
        ConfigError: with all problems, sorted by place, such as `config.yaml:24:17 train.learning_rate: ...`, or
            `--config train.learning_rate: ...` for an override; or there is no such experiment.
    """
    return ConfigSource(path, overrides, text=text).settings(experiment)


class ConfigSource:
    """A config that was read once, for its own settings and for those of each of its experiments.

    Args:
        path, overrides, text: as for `load_config`.
        overrides_win: whether the overrides count more than an experiment's own values, as what a command is asked for.

    Raises:
        ConfigError: it cannot be read as YAML.
    """

    def __init__(
        self,
        path: Path,
        overrides: Mapping[str, Json] | None = None,
        *,
        text: str | None = None,
        overrides_win: bool = False,
    ) -> None:
        from hv15.config.yaml_file import read_yaml

        self.path = Path(path)
        self.root = project_of(self.path).root
        self._source = read_yaml(self.path, text)
        self._replaced: set[Location] = set()
        self._overrides, self._overrides_win = overrides or {}, overrides_win
        self._data = merged(self._source.data, self._overrides, (), self._replaced)
        self._other_files = _OtherFiles(self.root)
        self._base: Settings | None = None
        self._experiments: dict[str, Experiment] | None = None
        self._of_experiments: dict[str, Settings] = {}

    def settings(self, experiment: str = "") -> Settings:
        """Return the settings of the config itself, or of an experiment.

        Raises:
            ConfigError: they are wrong, or there is no such experiment.
        """
        if experiment:
            if experiment not in self._of_experiments:
                self._of_experiments[experiment] = self._settings_of(self.experiment(experiment))
            return self._of_experiments[experiment]
        if self._base is None:
            origin = _Origin(self._source, self._replaced, self.root)
            try:
                self._base = self._validated(dict(self._data), origin)
            except ConfigError as error:
                found = dict.fromkeys([*error.problems, *self._faults_of_experiments(origin, error.problems)])
                raise ConfigError(sorted(found, key=origin.order)) from None
        return self._base

    def _faults_of_experiments(self, origin: _Origin, told: Collection[Problem]) -> Iterator[Problem]:
        """Yield what is wrong in the experiments' own values, so that all mistakes of a wrong config are told at once.

        Args:
            told: what is known to be wrong already.
        """
        experiments, sweep = readable_parts(self._data)
        places = {problem.place.setting for problem in told}
        for place, text in experiment_conflicts(experiments, sweep):
            places.add(place)
            yield Problem(text, place=origin.place(place))

        def is_told(place: Location) -> bool:
            return any(place[:depth] in places for depth in range(OF_SETTING, len(place) + 1))

        for each in samples_of_values(experiments, sweep):
            changes = tuple(change for change in each.changes if not is_told(change.place))
            own = {place for change in changes for place in (change.place, change.key_place)}
            try:
                self._settings_of(replace(each, changes=changes))
            except ConfigError as error:
                for problem in error.problems:
                    place = problem.place.setting
                    is_own = any(place[:depth] in own for depth in range(len(place) + 1))
                    if is_own and not is_told(place):
                        yield problem

    @property
    def experiments(self) -> Mapping[str, Experiment]:
        """All experiments by name, in the order of the config: those that it names, then those of the sweep.

        Raises:
            ConfigError: the config is wrong.
        """
        if self._experiments is None:
            base = self.settings()
            found = (*named_experiments(base.experiments), *swept_experiments(base.sweep))
            self._experiments = {each.name: each for each in found}
        return self._experiments

    def experiment(self, name: str) -> Experiment:
        """Return an experiment.

        Raises:
            ConfigError: there is none of this name, or the config is wrong.
        """
        known = self.experiments
        if name not in known:
            listed = f"; there are {', '.join([*known][:MOST_LISTED])}" if known else ""
            more = f" and {len(known) - MOST_LISTED} more" if len(known) > MOST_LISTED else ""
            found = f"has no experiment called '{name}'{nearest(name, [*known])}{listed}{more}"
            raise ConfigError([Problem(found, "add it to experiments or sweep", Place(self.path))])
        return known[name]

    def check_experiments(self) -> None:
        """Check the settings of all experiments.

        Raises:
            ConfigError: with the problems of all of them, each once.
        """
        problems: list[Problem] = []
        for name in self.experiments:
            try:
                self.settings(name)
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(dict.fromkeys(problems))

    def _settings_of(self, experiment: Experiment) -> Settings:
        base = self._source.data if self._overrides_win else self._data
        data: Json = {name: value for name, value in base.items() if name not in ("experiments", "sweep")}
        origin = _Origin(self._source, self._replaced, self.root, experiment, self._overrides_win)
        for change in experiment.changes:
            try:
                data = with_value(data, change.setting, change.value)
            except LookupError as error:
                raise ConfigError([Problem(str(error.args[0]), place=origin.place_in_file(change.place))]) from None
        assert isinstance(data, dict)
        if self._overrides_win:
            data = merged(data, self._overrides, (), set())
        try:
            return self._validated(data, origin)
        except ConfigError as error:
            raise ConfigError(dict.fromkeys(map(origin.of_experiment, error.problems))) from None

    def _validated(self, data: JsonObject, origin: _Origin) -> Settings:
        origin.toml = _datasets_file(data.get("datasets"), origin)
        if origin.toml is not None:
            data["datasets"] = [*self._other_files.datasets(origin.toml)]
        _add_prompts(data, origin, self._other_files)
        problems = [] if origin.prompts is None else origin.prompts.problems
        try:
            settings = Settings.model_validate(data)
        except ValidationError as error:
            problems = [*problems, *explain(error, Settings, data, origin.place)]
            raise ConfigError(sorted(problems, key=origin.order)) from None
        if problems:
            raise ConfigError(sorted(problems, key=origin.order))
        settings._root = self.root
        settings._prompt_places = origin.prompt_places
        return settings


class _OtherFiles:
    """Files that a config names, each of which is read once, though all experiments name it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._datasets: dict[Path, list[JsonObject]] = {}
        self._prompts: dict[Path, PromptsFile] = {}

    def datasets(self, file: Path) -> list[JsonObject]:
        """Read a musubi dataset file; settings that hv15 treats differently are adapted, with a warning."""
        if file not in self._datasets:
            from hv15.data.musubi import read_musubi

            found = read_musubi(file, self._root)
            for note in found.notes:
                log.warning("%s", note)
            self._datasets[file] = found.datasets
        return self._datasets[file]

    def prompts(self, file: Path) -> PromptsFile:
        """Read a file of prompts.

        Raises:
            ConfigError: something is wrong in it.
        """
        if file not in self._prompts:
            from hv15.config.prompt_files import read_prompts

            self._prompts[file] = read_prompts(file, self._root)
        return self._prompts[file]


@dataclass
class _Origin:
    """The sources of the settings."""

    yaml: YamlFile
    replaced: set[Location]
    """The settings from the command line."""
    root: Path
    experiment: Experiment | None = None
    """Whose settings they are; None: the config's own."""
    overrides_win: bool = False
    """Whether the command line counts more than the experiment."""
    toml: Path | None = None
    """The file with the datasets, if it is not the config itself."""
    prompts: PromptsFile | None = None
    """The file with the last prompts, if there is one."""
    own_prompts: int = 0
    """The number of prompts that stand in the config itself."""

    def place(self, location: Location, of_key: bool = False) -> Place:
        """Return the place of a setting, or of its key."""
        if (moved := self._in_experiment(location)) is not None:
            keys = {change.place: change.key_place for change in self.experiment.changes} if self.experiment else {}
            return self.place_in_file(keys.get(moved, moved) if of_key else moved, of_key)
        if self.toml is not None and location[:1] == ("datasets",):
            return Place(self.toml, setting=location)
        if self.prompts is not None and (number := self._in_prompts(location)) is not None:
            return self.prompts.place(number, location[3:], of_key=of_key)
        return self.place_in_file(location, of_key)

    def place_in_file(self, location: Location, of_key: bool = False) -> Place:
        """Return the place of what is at a location of the config itself, or was given on the command line."""
        if any(location[:depth] in self.replaced for depth in range(1, len(location) + 1)):
            return Place(COMMAND_LINE, setting=location)
        return Place(self.yaml.path, *self.yaml.position(location, of_key=of_key), location)

    def _in_experiment(self, location: Location) -> Location | None:
        """Where the experiment's own value of a setting, or of one in a section, stands; None if it has none."""
        is_replaced = any(location[:depth] in self.replaced for depth in range(1, len(location) + 1))
        changes = () if self.experiment is None else self.experiment.changes
        if self.overrides_win and is_replaced:
            return None
        for change in changes:
            depth = len(change.setting)
            if location[:depth] == change.setting:
                return (*change.place, *location[depth:])
        inside = (change.place for change in changes if location and change.setting[: len(location)] == location)
        return next(inside, None)

    def of_experiment(self, problem: Problem) -> Problem:
        """Return a problem of an experiment's settings at its own value, or else at the experiment, which is named."""
        assert self.experiment is not None
        place, name = problem.place, self.experiment.name
        if place.file not in (self.yaml.path, COMMAND_LINE):
            return replace(problem, message=f"in {name}: {problem.message}")
        if any(
            place.setting == change.key_place or place.setting[: len(change.place)] == change.place
            for change in self.experiment.changes
        ):
            return problem
        found = f"in {name}: {dotted(place.setting)}: {problem.message}"
        return replace(problem, message=found, place=self.place_in_file(self.experiment.place, of_key=True))

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
        number = files.index(place.file) if place.file in files else files.index(prompts)  # a file that is unreadable
        return number, place.line or 0, place.column or 0, dotted(place.setting)


def _add_prompts(data: JsonObject, origin: _Origin, files: _OtherFiles) -> None:
    """Put the entries of `sample.prompts_file` behind those of `sample.prompts`, and leave out the file's name.

    Raises:
        ConfigError: there is no such file, or something is wrong in it.
    """
    sample = data.get("sample")
    if not isinstance(sample, dict) or not isinstance(name := sample.get("prompts_file"), str):
        return
    own = sample.get("prompts", [])
    if not isinstance(own, list):  # which is an error
        return
    path = _existing_file(name, origin, ("sample", "prompts_file"), "a file of prompts (.yaml, .jsonl or .txt)")
    origin.prompts, origin.own_prompts = files.prompts(path), len(own)
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
