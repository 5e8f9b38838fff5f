"""`hv15 new`, `check`, `show`: what concerns a project as a whole."""

from __future__ import annotations

import shlex

from hv15.commands.options.project import Check, New, Show
from hv15.errors import UserError
from hv15.project import Project


def new(options: New) -> None:
    """Make a project folder."""
    from hv15.config import new_project

    config = new_project(options.folder, options.preset)
    print(f"{config}: edit it, then run, in the folder of hv15's Snakefile:")
    print(f"  snakemake -d {shlex.quote(str(config.parent.resolve()))} results/lora.safetensors")


def check(options: Check) -> int:
    """Check everything that can be checked without computing with a model; 2 when something is wrong."""
    from hv15.commands.checks import dataset_lines, file_lines, model_lines, sample_lines
    from hv15.commands.disk import disk_lines
    from hv15.commands.notes import checkpoint_line
    from hv15.workflow import make_demo_clips

    project = Project(options.config, options.overrides)
    make_demo_clips(project)
    _print(f"config         {options.config}: task {project.settings.task}, {checkpoint_line(project)}")
    problems = 0
    every = (model_lines, file_lines, sample_lines, dataset_lines, disk_lines)
    for lines in every[:1] if options.models else every:
        try:
            for line, is_problem in lines(project):
                _print(line, is_problem)
                problems += is_problem
        except UserError as error:
            _print(str(error), is_problem=True)
            problems += 1
    project.save_caches()
    print(f"{problems} problem{'s' * (problems > 1)}" if problems else "everything is in place")
    return 2 if problems else 0


def _print(line: str, is_problem: bool = False) -> None:
    """Print a line of the check; problems are marked."""
    print(f"{'!' if is_problem else ' '} {line}".replace("\n", "\n  "))


def show(options: Show) -> None:
    """Print what a file was made from."""
    from hv15.commands.provenance import config_of, describe

    if options.as_config:
        print(config_of(options.file), end="")
    else:
        print(describe(options.file))
