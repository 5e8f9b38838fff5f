"""The start of a run: `hv15 run`, in a process of its own, so that it refuses here what it refuses in a terminal."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hv15.environment import FAILURE_VARIABLE
from hv15.errors import UserError
from hv15.records.failures import read_failure
from hv15.records.json_values import RecordError, parse_object
from hv15.runs import control


def start_run(config: Path, targets: Sequence[str]) -> str:
    """Start the workflow on a project, and return in one line that it was started. Takes seconds: for a thread.

    Raises:
        UserError: the config, or what it names, cannot be used; a run is in progress; or `hv15 run` failed.
    """
    with tempfile.TemporaryDirectory(prefix="hv15-start-") as folder:
        record = Path(folder) / "failure.json"
        done = subprocess.run(
            [sys.executable, "-P", "-m", "hv15.cli", "run", str(config), *(f"--target={each}" for each in targets)],
            cwd=config.parent,
            env=control.environment(**{FAILURE_VARIABLE: str(record)}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode == 0:
            return done.stdout.partition("\n")[0]
        try:
            failure = read_failure(parse_object(record.read_bytes())).failure
        except (OSError, RecordError):
            said = done.stderr.strip().splitlines() or [f"`hv15 run` ended with exit code {done.returncode}"]
            raise UserError(said[-1]) from None
        first, *others = failure.cause.split("\n")
        raise UserError(first, lines=others, hint=failure.cure, place=failure.place)
