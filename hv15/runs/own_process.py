"""An hv15 command in a process of its own, whose refusal comes back as the error that it is."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from hv15.environment import FAILURE_VARIABLE
from hv15.errors import UserError
from hv15.records.failures import read_failure
from hv15.records.json_values import RecordError, parse_object
from hv15.runs import control


def run_command(
    words: Sequence[str],
    folder: Path,
    *,
    variables: Mapping[str, str | None] | None = None,
    keep_open: Sequence[int] = (),
) -> str:
    """Run an hv15 command to its end and return what it printed. Takes seconds: for a thread.

    Args:
        words: the command with its arguments.
        folder: where it is run.
        variables: of its environment, besides those of this process; None removes one.
        keep_open: descriptors that stay open until it has ended, such as a lock.

    Raises:
        UserError: it refused, or failed.
    """
    with tempfile.TemporaryDirectory(prefix="hv15-start-") as temporary:
        record = Path(temporary) / "failure.json"
        environment = control.environment(**{FAILURE_VARIABLE: str(record)})
        for name, value in (variables or {}).items():
            environment.pop(name, None)
            if value is not None:
                environment[name] = value
        done = subprocess.run(
            [sys.executable, "-P", "-m", "hv15.cli", *words],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            pass_fds=keep_open,
        )
        if done.returncode == 0:
            return done.stdout
        try:
            failure = read_failure(parse_object(record.read_bytes())).failure
        except (OSError, RecordError):
            said = done.stderr.strip().splitlines() or [f"`hv15 {words[0]}` ended with exit code {done.returncode}"]
            raise UserError(said[-1]) from None
        first, *others = failure.cause.split("\n")
        raise UserError(first, lines=others, hint=failure.cure, place=failure.place)
