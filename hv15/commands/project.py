"""`hv15 new`, `fetch`, `snakefile` and `show`."""

from __future__ import annotations

import shlex
from pathlib import Path

from hv15.commands.options.project import Fetch, New, Show, Snakefile
from hv15.errors import UserError
from hv15.records.paths import ProjectPaths
from hv15.runs.record import project_config
from hv15.terminal_text import one_line


def new(options: New) -> None:
    """Make a project folder."""
    from hv15.config import new_project, preset_text

    text = preset_text(options.preset)
    if options.recipe is not None:
        from hv15.recipes import with_recipe

        text = with_recipe(text, options.recipe)
    config = new_project(options.folder, text)
    print(f"{one_line(str(config))}: look through it, then")
    folder = str(options.folder)
    for words in (["check", folder], ["plan", folder], ["run", folder, "--follow"]):
        print("  " + shlex.join(["hv15", *words]))


def snakefile(options: Snakefile) -> None:
    """Print the path of hv15's Snakefile."""
    from hv15.home import workflow_folder

    print(workflow_folder() / "Snakefile")


def fetch(options: Fetch) -> None:
    """Copy what the config names in remote storage.

    Raises:
        UserError: it names nothing there; or as `hv15.project.remote.fetch`.
    """
    from hv15.project import Project, remote

    project = Project(options.config, options.overrides)
    items = remote.remote_items(project)
    if not items:
        raise UserError.at(options.config, "names nothing in remote storage", hint="such a path begins with s3://")
    remote.fetch(project, items)
    for each in items:
        print(one_line(f"{each.url}: {each.place}"))


def show(options: Show) -> None:
    """Print what a file was made from.

    Raises:
        UserError: the file cannot be read, does not tell it, or options do not belong together.
    """
    from hv15.commands.provenance import config_of, describe

    if options.segment is not None and not options.as_config:
        raise UserError("--segment without --config", hint="add --config, or leave it out: all of them are listed")
    file = _shown_file(options.file, options.experiment)
    if options.as_config:
        print(config_of(file, options.segment), end="")
    else:
        print(describe(file))


def _shown_file(file: Path, experiment: str) -> Path:
    """The file that is shown: the one that is named or, of an experiment of a project, its LoRA.

    Raises:
        UserError: it is not made yet, or there is no such experiment.
    """
    from hv15.config.load import ConfigSource

    if not experiment:
        return file
    config = project_config(file)
    lora = ProjectPaths(config.parent, experiment).lora
    if not lora.exists():
        ConfigSource(config).experiment(experiment)
        words = ["hv15", "run", str(file), "--experiment", experiment]
        raise UserError.at(lora, "is not made yet", hint=f"`{shlex.join(words)}` makes it")
    return lora
