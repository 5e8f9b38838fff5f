"""Arguments of the commands that concern a project as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from hv15.arguments import Argument, Command, Entry
from hv15.commands.options.base import ExperimentName, SettingsCommand, Targets, WholeProjectCommand


@dataclass(frozen=True, kw_only=True)
class New(Command):
    """Make a project folder with a commented config.yaml."""

    name: ClassVar[str] = "new"
    folder: Annotated[Path, Argument("where to make it", positional=True)]
    preset: Annotated[str, Argument("demo, i2v-16gb, t2v-24gb or t2v-80gb")] = "t2v-24gb"
    recipe: Annotated[
        str | None, Argument("train as others do: diffusion-pipe, musubi, official or simpletuner (as the preset)")
    ] = None

    def run(self) -> None:
        from hv15.commands.project import new

        new(self)


@dataclass(frozen=True, kw_only=True)
class Check(SettingsCommand):
    """Check settings, models, dataset and disk before a run."""

    name: ClassVar[str] = "check"
    models: Annotated[bool, Argument("the model files only")] = False
    json: Annotated[bool, Argument("for programs")] = False

    def run(self) -> int:
        from hv15.commands.check import check

        return check(self)


@dataclass(frozen=True, kw_only=True)
class Plan(SettingsCommand):
    """Say beforehand what each stage needs, and how long it takes."""

    name: ClassVar[str] = "plan"
    device: Annotated[str | None, Argument("a GPU by name, such as 4090 or a100-80gb (this machine's)")] = None
    base: Annotated[bool, Argument("the config alone, without its experiments")] = False
    memory: Annotated[str | None, Argument("any GPU with so much memory, such as 16GiB", metavar="SIZE")] = None
    rates: Annotated[Path | None, Argument("a self-test's report or its rates.json, to plan for that device")] = None
    json: Annotated[bool, Argument("for programs")] = False
    out: Annotated[Path | None, Argument("write it to a file")] = None

    def run(self) -> None:
        from hv15.commands.plan import plan

        plan(self)


@dataclass(frozen=True, kw_only=True)
class Timesteps(SettingsCommand):
    """Show which noise levels the training draws, and their weights."""

    name: ClassVar[str] = "timesteps"
    out: Annotated[Path | None, Argument("draw a picture, too: a .png or an .svg")] = None

    def run(self) -> None:
        from hv15.commands.timesteps import timesteps

        timesteps(self)


@dataclass(frozen=True, kw_only=True)
class Show(Command):
    """Print what a LoRA, a sample or a checkpoint was made from."""

    name: ClassVar[str] = "show"
    file: Annotated[
        Path,
        Argument(
            "a file that hv15 made, or any checkpoint or LoRA; with --experiment, its project (here)", positional=True
        ),
    ] = Path()
    experiment: ExperimentName = ""
    as_config: Annotated[bool, Argument("print a config.yaml that reproduces it", flags=("--config",))] = False
    segment: Annotated[
        int | None, Argument("with --config: of the trainings that made it one after the other, this one (the last)")
    ] = None

    def run(self) -> None:
        from hv15.commands.project import show

        show(self)


@dataclass(frozen=True, kw_only=True)
class Fetch(WholeProjectCommand):
    """Copy what the config names in remote storage (s3://...) into the cache; again what is newer there."""

    name: ClassVar[str] = "fetch"

    def run(self) -> None:
        from hv15.commands.project import fetch

        fetch(self)


@dataclass(frozen=True, kw_only=True)
class Lock(WholeProjectCommand):
    """Write versions, models and clips as they are now into hv15.lock."""

    name: ClassVar[str] = "lock"
    check: Annotated[bool, Argument("say instead what differs from it now; exit code 1 if anything does")] = False

    def run(self) -> int:
        from hv15.commands.lock import lock

        return lock(self)


@dataclass(frozen=True, kw_only=True)
class Reproduce(Command):
    """Train a LoRA again from what its file tells, and say whether it is the same."""

    name: ClassVar[str] = "reproduce"
    lora: Annotated[Path, Argument("a LoRA that hv15 trained", positional=True)]
    project: Annotated[
        Path | None, Argument("the folder at which the relative paths of its config start (the project that it is in)")
    ] = None
    anyway: Annotated[bool, Argument("train it even if clips or models are known to differ")] = False

    def run(self) -> int:
        from hv15.commands.reproduce import reproduce

        return reproduce(self)


@dataclass(frozen=True, kw_only=True)
class Collect(WholeProjectCommand):
    """Remove encoded items that no project with this store needs."""

    name: ClassVar[str] = "gc"
    unused: Annotated[bool, Argument("also what this project encoded and no longer needs")] = False
    forget: Annotated[bool, Argument("also what only projects with missing folders need")] = False
    yes: Annotated[bool, Argument("remove them; without it they are only counted")] = False

    def run(self) -> None:
        from hv15.commands.store import collect

        collect(self)


@dataclass(frozen=True, kw_only=True)
class Repair(WholeProjectCommand):
    """Read every encoded item and drop damaged ones."""

    name: ClassVar[str] = "repair"

    def run(self) -> None:
        from hv15.commands.store import repair

        repair(self)


@dataclass(frozen=True, kw_only=True)
class Why(SettingsCommand):
    """Say what would run and why."""

    name: ClassVar[str] = "why"
    words: Targets = ()
    target: Annotated[tuple[str, ...], Argument("the same as TARGET")] = ()
    json: Annotated[bool, Argument("for programs")] = False

    def run(self) -> None:
        from hv15.commands.why import why

        why(self)


@dataclass(frozen=True, kw_only=True)
class Snakefile(Command):
    """Print where the workflow's Snakefile is, for snakemake's own -s."""

    name: ClassVar[str] = "snakefile"

    def run(self) -> None:
        from hv15.commands.project import snakefile

        snakefile(self)


@dataclass(frozen=True, kw_only=True)
class Publish(SettingsCommand):
    """Upload the LoRA's copies for other programs with a model card; without --upload, only say what that would be.

    The token is that of `hf auth login`, or HF_TOKEN.
    """

    name: ClassVar[str] = "publish"
    to: Annotated[Literal["hub"], Argument("where to: the Hugging Face Hub")] = "hub"
    repo: Annotated[str, Argument("the repository, which is made if it is not there", metavar="USER/NAME")]
    upload: Annotated[bool, Argument("really upload", flags=("--upload", "--yes"))] = False
    private: Annotated[bool, Argument("make a new repository private, and refuse a public one")] = False
    message: Annotated[str, Argument("the commit's")] = "Upload a LoRA for HunyuanVideo 1.5"

    def run(self) -> None:
        from hv15.commands.publish import publish

        publish(self)


PROJECT_COMMANDS: tuple[Entry, ...] = (
    New,
    Fetch,
    Check,
    Plan,
    Timesteps,
    Why,
    Show,
    Lock,
    Reproduce,
    Snakefile,
    Publish,
    Collect,
    Repair,
)
