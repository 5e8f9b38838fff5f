"""Replays the recorded run into a folder: files appear and grow as they did, at any speed and with any clock.

As a program (`python -m tui.demo.replay FOLDER`) it is the run: it holds the project's lock and stops on Ctrl-C as
Snakemake does, so that the dashboard sees, stops and kills it like any other.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import sys
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import psutil

from hv15.atomic import write_json
from hv15.environment import RUN_VARIABLE
from hv15.errors import UserError
from hv15.records.events import JobDone, JobsPlanned, RunEnded, RunRecord, read_run
from hv15.records.fields import to_json
from hv15.records.json_values import JsonObject, parse_object
from hv15.records.metrics import RECORDS, measures
from hv15.records.paths import ProjectPaths
from hv15.runs import lock
from hv15.runs.followed_file import append_object
from hv15.runs.record import RunFolder, append_event, history
from hv15.runs.state import all_events
from tui.demo.timeline import RECORDING, RecordedFile, read_timeline, recorded_name

TICK_S = 0.2
SECONDS_BEFORE = 3600.0
"""How long before the replay the run before it began, as the history shows it."""


@dataclass
class _GrowingFile:
    """One file of the run, and how much of it has been written."""

    path: str
    content: bytes
    whole_from: float | None
    """When it appears as a whole; None: it grows line by line."""
    times: list[float]
    """When each line comes."""
    lines: list[bytes]
    written: int = 0


class Replay:
    """The recorded run in a project folder of its own.

    Args:
        root: an empty or missing folder, which becomes the project.
        clock: time.time, or any other.
        speed: seconds of the recording in a second.
        pid: of the process that counts as the run.
        at: where to begin, as a share of the recording; what came before is written at once. 1: it has ended.
    """

    def __init__(
        self,
        root: Path,
        *,
        clock: Callable[[], float] = time.time,
        speed: float = 1.0,
        pid: int | None = None,
        at: float = 0.0,
    ) -> None:
        timeline = read_timeline()
        self.root, self.speed, self._clock = root, speed, clock
        self.seconds = timeline.seconds
        """Length of the recording."""
        self.began = clock() - at * self.seconds / speed
        self.run = RunFolder(root, time.strftime("%Y%m%d-%H%M%S-demo", time.localtime(self.began)))
        self._recorded_start = timeline.start
        self._recorded_run = timeline.run
        self._files = [self._file(each) for each in timeline.files]
        root.mkdir(parents=True, exist_ok=True)
        self._lock = lock.take(root, self.run.id)
        if self._lock is None:
            raise UserError.at(root, "a run is already in progress", hint="choose another folder")
        self._make_project()
        self._begin(os.getpid() if pid is None else pid)

    def __enter__(self) -> Replay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def position(self) -> float:
        """Seconds of the recording that have passed."""
        return (self._clock() - self.began) * self.speed

    def advance(self) -> bool:
        """Write what is due; False when the run has ended."""
        now = self.position
        for file in self._files:
            if file.whole_from is not None:
                if now >= file.whole_from and not file.written:
                    file.written = 1
                    self._write(file, file.whole_from, "wb", file.content)
                continue
            due = bisect_right(file.times, now)
            if due > file.written:
                self._write(file, file.times[due - 1], "ab", b"".join(file.lines[file.written : due]))
                file.written = due
        if now < self.seconds:
            return True
        self.close()
        return False

    def stop(self) -> None:
        """End the run now, as Ctrl-C ends it."""
        if self._lock is not None:
            done, total = self._counts()
            error = "" if total else "KeyboardInterrupt"  # as Snakemake's, before it has planned anything
            end = RunEnded(time=self._clock(), done=done, total=total, error=error, signal=signal.SIGINT.name)
            append_event(self.run.events, end)
        self.close()

    def close(self) -> None:
        """Give the lock back. Without an `end` in its events the run then counts as dead."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _file(self, recorded: RecordedFile) -> _GrowingFile:
        path = recorded.path.replace(self._recorded_run, self.run.id)
        content = (RECORDING / "run" / recorded_name(recorded.path)).read_bytes()
        lines = content.splitlines(keepends=True)
        if recorded.tells_times:
            return _GrowingFile(path, content, None, *self._timed(lines))
        if recorded.line_times is not None:
            return _GrowingFile(path, content, None, list(recorded.line_times), lines)
        if recorded.end is not None and lines:
            step = (recorded.end - recorded.begin) / len(lines)
            times = [recorded.begin + step * (number + 1) for number in range(len(lines))]
            return _GrowingFile(path, content, None, times, lines)
        return _GrowingFile(path, content, recorded.begin, [], [])

    def _timed(self, lines: list[bytes]) -> tuple[list[float], list[bytes]]:
        """When lines with a `time` come, and the lines as they would have been written now."""
        times, shifted = [], []
        for line in lines:
            content = parse_object(line)
            at = _time_of(content) - self._recorded_start
            times.append(max(0.0, at))
            content["time"] = round(self.began + at / self.speed, 3)
            _hasten(content, self.speed)
            shifted.append(json.dumps(content).encode() + b"\n")
        return times, shifted

    def _make_project(self) -> None:
        """Lay out what was there before the run, its history moved to just before now."""
        shutil.copytree(RECORDING / "project", self.root, dirs_exist_ok=True)
        hidden = ProjectPaths(self.root).hidden
        if (folder := self.root / recorded_name(f"{hidden.name}/")).is_dir():
            shutil.copytree(folder, hidden, dirs_exist_ok=True)
            shutil.rmtree(folder)
        earlier = history(self.root)
        starts = [record.started for run in earlier if (record := run.record())]
        shift = self.began - SECONDS_BEFORE - max(starts, default=0.0)
        for run in earlier:
            self._move_in_time(run, shift)
        before = self.began - SECONDS_BEFORE
        for metrics in ProjectPaths(self.root).set_aside():  # the newest file is the training that is watched
            os.utime(metrics, (before, before))

    def _move_in_time(self, run: RunFolder, shift: float) -> None:
        record = run.record()
        if record is None:
            return
        started = record.started + shift
        moved = RunFolder(self.root, time.strftime("%Y%m%d-%H%M%S-demo", time.localtime(started)))
        run.path.rename(moved.path)
        self._write_record(moved, replace(record, started=started, create_time=record.create_time + shift))
        lines = [parse_object(line) for line in moved.events.read_bytes().splitlines()]
        moved.events.unlink()
        for line in lines:
            append_object(moved.events, {**line, "time": _time_of(line) + shift})

    def _begin(self, pid: int) -> None:
        self.run.path.mkdir(parents=True)
        recorded = RunFolder(Path(), self._recorded_run).record_file
        record = read_run(parse_object((RECORDING / "run" / recorded_name(str(recorded))).read_bytes()))
        created, leads = psutil.Process(pid).create_time(), os.getpgid(pid) == pid
        record = replace(record, pid=pid, create_time=created, leads_group=leads, started=self.began)
        self._write_record(self.run, record)
        self._files = [file for file in self._files if not file.path.endswith(f"/{recorded.name}")]
        self.advance()

    def _write_record(self, run: RunFolder, record: RunRecord) -> None:
        here = replace(record, id=run.id, host=socket.gethostname(), boot_time=psutil.boot_time())
        write_json(run.record_file, to_json(here))

    def _counts(self) -> tuple[int, int]:
        """Jobs that are done, and all of them."""
        events = all_events(self.run.events)
        total = sum(event.total for event in events if isinstance(event, JobsPlanned))
        return sum(isinstance(event, JobDone) for event in events), total

    def _write(self, file: _GrowingFile, at: float, mode: str, content: bytes) -> None:
        """Append or overwrite, dated as if it had been written at the moment when it was due."""
        path = self.root / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open(mode) as target:
            target.write(content)
        written = self.began + at / self.speed
        os.utime(path, (written, written))


def _hasten(line: JsonObject, speed: float) -> None:
    """Change the durations and rates of a line of metrics into those of a machine that is so much faster."""
    kind = RECORDS.get(str(line.get("kind")))
    if kind is None or speed == 1:
        return
    for name, measure in measures(kind).items():
        value = line.get(name)
        if isinstance(value, int | float):
            if measure.unit == "s" or measure.share_of:
                line[name] = value / speed
            elif measure.unit == "1/s":
                line[name] = value * speed


def _time_of(line: JsonObject) -> float:
    time = line["time"]
    assert isinstance(time, int | float)
    return time


def main() -> int:
    """Be the run until it has ended or somebody stops it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--speed", type=float, default=1.0)
    options = parser.parse_args()
    os.environ.pop(RUN_VARIABLE, None)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process may have been told to ignore it
    with Replay(options.folder, speed=options.speed) as replay:
        try:
            while replay.advance():
                time.sleep(TICK_S)
        except KeyboardInterrupt:
            replay.stop()
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
