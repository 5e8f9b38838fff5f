"""Starts the process that follows a run, from inside the run, and lets it tell the end of the run before it ends."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping

from hv15.environment import RUN_VARIABLES
from hv15.notices.readiness import is_wanted
from hv15.notices.settings import lenient_settings
from hv15.records.json_values import Json
from hv15.runs.record import RunFolder

WAIT_S = 15.0
"""How long the end of a run's process waits for its notice: in a container or a cluster's job all ends with it."""
PROGRAM = (sys.executable, "-P", "-m", "hv15.notices.detached")


class RunFollower:
    """The process that follows a run."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @classmethod
    def of(cls, run: RunFolder, overrides: Mapping[str, Json] | None = None) -> RunFollower | None:
        """Start it if notices are wanted; None if not, or if it cannot be started, which stderr says in a line.

        Args:
            run: with its copy of the config.
            overrides: settings that override those of the config.
        """
        settings, problems = lenient_settings(run.config, overrides)
        for problem in problems:
            _say(f"notices: {problem}")
        if not is_wanted(settings):
            return None
        # The variable that marks the processes of the run would make it one of them, which `hv15 stop` waits for.
        environment = {name: value for name, value in os.environ.items() if name not in RUN_VARIABLES}
        try:
            process = subprocess.Popen(
                [*PROGRAM, str(run.root.absolute()), run.id],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            assert process.stdin is not None
            process.stdin.write(settings.model_dump_json().encode() + b"\n")
            process.stdin.flush()
        except OSError as error:
            _say(f"notices: none will be sent: {error.strerror}")
            return None
        return cls(process)

    def end(self, wait_s: float = WAIT_S) -> None:
        """Let it tell the end of the run, which has to be recorded; wait for that so many seconds, and say how it went.

        After that time it goes on alone.
        """
        output = self._process.stdout
        if self._process.stdin is None or output is None:
            return
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        said, deadline = b"", time.monotonic() + wait_s
        try:
            while (left := deadline - time.monotonic()) > 0 and select.select([output], [], [], left)[0]:
                if not (part := os.read(output.fileno(), 1 << 16)):
                    break
                said += part
            else:
                _say(f"notice of the end: not sent everywhere yet after {wait_s:.0f} s; it is tried further")
        except (KeyboardInterrupt, OSError, ValueError):  # more files are open than can be waited for
            _say("notice of the end: it is sent in the background")
        output.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        for line in said.decode("utf-8", "replace").splitlines():
            _say(line)


def _say(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # the terminal is gone
        print(line, file=sys.stderr, flush=True)
