"""The start of a run: `hv15 run`, in a process of its own, so that it refuses here what it refuses in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hv15.runs.own_process import run_command


def start_run(config: Path, targets: Sequence[str]) -> str:
    """Start the workflow on a project, and return in one line that it was started. Takes seconds: for a thread.

    Raises:
        UserError: the config, or what it names, cannot be used; a run is in progress; or `hv15 run` failed.
    """
    words = ["run", str(config), *(f"--target={each}" for each in targets)]
    return run_command(words, config.parent).partition("\n")[0]
