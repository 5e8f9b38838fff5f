"""Follows a run and tells its end, its failure and its stalls.

It is a process (`hv15.notices.detached`) that is started from inside the run (`hv15.notices.follower`) and outlives it,
so that a run that is killed is told, too.
Its first line of input holds the settings as JSON. The end of its input is the end of the run's process. What became of
a notice stands in the run's notices.jsonl and, at the end, in its output.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from hv15.config.notify import NotifySettings
from hv15.notices.delivery import deliver
from hv15.notices.progress import SignsOfLife
from hv15.notices.wording import notice_of_end, notice_of_stall
from hv15.records.fields import to_json
from hv15.records.notices import Notice, NoticeDelivery
from hv15.runs.followed_file import append_object
from hv15.runs.record import RunFolder
from hv15.runs.state import RunState, RunStatus, status

LONGEST_PAUSE_S = 15.0
"""Between two looks at the files of a run."""
SETTLING_S = 0.2
"""Before the second look whether a run is known to have ended whose process has just ended."""


class RunWatch:
    """One run that is followed."""

    def __init__(self, run: RunFolder, settings: NotifySettings, input_descriptor: int) -> None:
        self._run, self._settings, self._input = run, settings, input_descriptor
        self._told_stall = False

    def follow(self) -> list[NoticeDelivery]:
        """Follow the run to its end, and return what became of the notice of it; none if none was due."""
        stall_s = 60 * self._settings.stall_minutes
        progress = SignsOfLife(self._run) if "stall" in self._settings.events else None
        pause = None if progress is None else min(LONGEST_PAUSE_S, stall_s / 4)
        while not select.select([self._input], [], [], pause)[0] or os.read(self._input, 1 << 16):
            if progress is not None:
                self._look(progress, stall_s)
        found = self._ended()
        return self._send(notice_of_end(found, details=self._settings.details)) if self._tells(found) else []

    def _look(self, progress: SignsOfLife, stall_s: float) -> None:
        silent_s = progress.silent_s()
        if silent_s <= stall_s:
            self._told_stall = False
        elif not self._told_stall and silent_s > progress.steps_s():
            self._told_stall = True
            found, details = status(self._run, self._run.id), self._settings.details
            self._send(notice_of_stall(found, silent_s, progress.running, details=details))

    def _ended(self) -> RunStatus:
        """The status of the run, whose process ends at this moment."""
        pause = SETTLING_S
        while (found := status(self._run, None)).state.alive:
            time.sleep(pause)
            pause = min(LONGEST_PAUSE_S, 1.5 * pause)
        return found

    def _tells(self, found: RunStatus) -> bool:
        """Whether the end of the run is told. That nothing had to be done is not."""
        is_end = found.state in (RunState.FINISHED, RunState.STOPPED)
        took = max(0.0, found.ended - found.started) if found.ended and found.started else float("inf")
        is_wanted = ("end" if is_end else "failure") in self._settings.events
        did_nothing = found.state is RunState.FINISHED and not found.total
        return is_wanted and not did_nothing and took >= 60 * self._settings.min_minutes

    def _send(self, notice: Notice) -> list[NoticeDelivery]:
        found = deliver(notice, self._settings, self._run.root)
        record(self._run, found)
        return found


def record(run: RunFolder, found: Iterable[NoticeDelivery]) -> None:
    """Add to a run's record what became of a notice; an error while writing is ignored."""
    for each in found:
        with contextlib.suppress(OSError):
            append_object(run.notices, to_json(each))


def _first_line(descriptor: int) -> bytes:
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(descriptor, 1)):
        line += byte
    return line


def main(root: Path, run_id: str) -> None:
    """Follow a run to its end, with what comes from stdin, and end this process."""
    settings = NotifySettings.model_validate(json.loads(_first_line(sys.stdin.fileno())))
    found = RunWatch(RunFolder(root, run_id), settings, sys.stdin.fileno()).follow()
    with contextlib.suppress(OSError):  # nobody waits any more
        os.write(sys.stdout.fileno(), "".join(f"{each.in_full}\n" for each in found).encode())
    os._exit(0)  # at once, whatever a thread still waits for
