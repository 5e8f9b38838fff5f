"""`hv15 new` and `show`."""

from __future__ import annotations

import shlex

from hv15.commands.options.project import New, Show
from hv15.records.paths import ProjectPaths


def new(options: New) -> None:
    """Make a project folder."""
    from hv15.config import new_project

    config = new_project(options.folder, options.preset)
    print(f"{config}: edit it, then run, in the folder of hv15's Snakefile:")
    print("  " + shlex.join(["snakemake", "-d", str(config.parent.resolve()), str(ProjectPaths().lora)]))


def show(options: Show) -> None:
    """Print what a file was made from."""
    from hv15.commands.provenance import config_of, describe

    if options.as_config:
        print(config_of(options.file), end="")
    else:
        print(describe(options.file))
