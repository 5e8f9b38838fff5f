"""What the commands have in common: how the project that they work on is given."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from hv15.arguments import Argument, Command
from hv15.environment import CONFIG_VARIABLE, OVERRIDES_VARIABLE
from hv15.out_of_memory import StageName
from hv15.records.json_values import Json, JsonObject, RecordError, parse_object
from hv15.records.paths import config_file

ProjectPath = Annotated[
    Path,
    Argument("its folder or config file (here)", positional=True, flags=("--config",), variable=CONFIG_VARIABLE),
]


Targets = Annotated[
    tuple[str, ...],
    Argument(
        "what to make: a file, samples, experiments (all that the config asks for)",
        positional=True,
        metavar="TARGET",
        several="*",
    ),
]


@dataclass(frozen=True, kw_only=True)
class ProjectCommand(Command):
    """A command of one project."""

    project: ProjectPath = Path()

    @property
    def config(self) -> Path:
        """The project's config file."""
        return config_file(self.project)


def _object(text: str) -> JsonObject:
    try:
        return parse_object(text)
    except RecordError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


ExperimentName = Annotated[str, Argument("one of its experiments, by name (its own settings)", metavar="NAME")]


@dataclass(frozen=True, kw_only=True)
class WholeProjectCommand(ProjectCommand):
    """A command that reads the settings of a project for all of its experiments, with those that the workflow's command
    line overrides."""

    overrides: Annotated[
        dict[str, Json],
        Argument("settings that override its own", metavar="JSON", read=_object, variable=OVERRIDES_VARIABLE),
    ] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SettingsCommand(WholeProjectCommand):
    """A command that reads the settings of a project, or of one of its experiments."""

    stage: ClassVar[StageName | None] = None
    """The command's name in a plan of memory, if it computes with a model."""

    experiment: ExperimentName = ""
