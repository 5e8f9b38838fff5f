"""Arguments of the commands about runs of the workflow, and of the dashboard."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from hv15.arguments import Argument, Command, Entry
from hv15.commands.options.base import ExperimentName, ProjectCommand, ProjectPath, SettingsCommand, Targets
from hv15.records.paths import ProjectPaths, config_file


@dataclass(frozen=True, kw_only=True)
class Run(ProjectCommand):
    """Start the workflow, detached: it outlives this terminal."""

    name: ClassVar[str] = "run"
    words: Targets = ()
    target: Annotated[tuple[str, ...], Argument(f"the same as TARGET ({ProjectPaths().lora})")] = ()
    experiment: ExperimentName = ""
    dry_run: Annotated[bool, Argument("only say what would run and why")] = False
    follow: Annotated[bool, Argument("print its output until it ends")] = False
    unlock: Annotated[bool, Argument("only remove the lock that a killed Snakemake left")] = False
    snakemake: Annotated[
        tuple[str, ...], Argument("pass all that follows to snakemake", metavar="WORDS", several=argparse.REMAINDER)
    ] = ()

    def run(self) -> int:
        from hv15.commands.runs import run

        return run(self)


@dataclass(frozen=True, kw_only=True)
class Pick(Command):
    """Publish the LoRA as it was after a step, with its samples and conversions."""

    name: ClassVar[str] = "pick"
    step: Annotated[str, Argument("a step that is kept, `best` (lowest validation loss), or `final`", positional=True)]
    project: ProjectPath = Path()
    experiment: ExperimentName = ""
    no_run: Annotated[bool, Argument("only write it into config.yaml")] = False
    follow: Annotated[bool, Argument("print the run's output until it ends")] = False

    @property
    def config(self) -> Path:
        """The project's config file."""
        return config_file(self.project)

    def run(self) -> int:
        from hv15.commands.checkpoints import pick

        return pick(self)


@dataclass(frozen=True, kw_only=True)
class Stop(ProjectCommand):
    """Save and stop, as Ctrl-C does; what is finished is kept."""

    name: ClassVar[str] = "stop"
    now: Annotated[bool, Argument("kill it: work since the last saved state is lost")] = False
    wait: Annotated[float, Argument("how long to wait for its end", metavar="SECONDS")] = 120.0

    def run(self) -> int:
        from hv15.commands.runs import stop

        return stop(self)


@dataclass(frozen=True, kw_only=True)
class SampleNow(ProjectCommand):
    """Ask the running training for samples after its current step."""

    name: ClassVar[str] = "sample-now"
    experiment: ExperimentName = ""

    def run(self) -> int:
        from hv15.commands.runs import sample_now

        return sample_now(self)


@dataclass(frozen=True, kw_only=True)
class Status(ProjectCommand):
    """Say what runs, or how the last run ended."""

    name: ClassVar[str] = "status"
    experiment: ExperimentName = ""
    json: Annotated[bool, Argument("for programs")] = False

    def run(self) -> int:
        from hv15.commands.runs import status

        return status(self)


@dataclass(frozen=True, kw_only=True)
class Notify(SettingsCommand):
    """Say where notices of runs go (`notify:` in the config), and what is missing to send them."""

    name: ClassVar[str] = "notify"
    test: Annotated[bool, Argument("send a test notice there")] = False

    def run(self) -> int:
        from hv15.commands.notify import notify

        return notify(self)


@dataclass(frozen=True, kw_only=True)
class Tui(ProjectCommand):
    """Edit, start and watch everything in the terminal."""

    name: ClassVar[str] = "tui"
    draws: ClassVar[bool] = True
    demo: Annotated[bool, Argument("show a recorded run instead of a project")] = False
    serve: Annotated[bool, Argument("for a browser on this machine, instead of the terminal")] = False
    port: Annotated[int, Argument("for --serve; 0 takes a free one")] = 8765

    def run(self) -> int:
        from hv15.commands.runs import tui

        return tui(self)


@dataclass(frozen=True, kw_only=True)
class CompareTrainings(Command):
    """Compare trainings: settings that differ, validation, time, memory, curves, samples side by side.

    (`hv15 compare` compares two LoRA files.)
    """

    name: ClassVar[str] = "compare-trainings"
    here: ClassVar[tuple[Path, ...]] = (Path(),)
    folders: Annotated[
        tuple[Path, ...],
        Argument(
            f"projects with their experiments, or single ones: {ProjectPaths(run='NAME').results} (here)",
            positional=True,
        ),
    ] = ()
    out: Annotated[
        Path | None, Argument("a folder for the page, CSV, LaTeX, charts and videos (the table is only printed)")
    ] = None

    def run(self) -> None:
        from hv15.commands.compare_trainings import compare_trainings

        compare_trainings(self)


RUN_COMMANDS: tuple[Entry, ...] = (Run, Pick, Stop, SampleNow, Status, Notify, CompareTrainings, Tui)
