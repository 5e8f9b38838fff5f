"""What is kept about each run, and where."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import psutil

from hv15.atomic import write_json
from hv15.environment import NEW_RUN_VARIABLE
from hv15.errors import UserError
from hv15.records.events import RunEvent, RunRecord, event_line, read_run
from hv15.records.fields import to_json
from hv15.records.json_values import RecordError, parse_object
from hv15.records.paths import ProjectPaths, config_file
from hv15.runs.followed_file import append_object

_TIME, _LENGTH = "%Y%m%d-%H%M%S", 15
"""How an id begins, and how many characters that are."""


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    root: Path
    """The project folder."""
    id: str

    @property
    def path(self) -> Path:
        return ProjectPaths(self.root).runs / self.id

    @property
    def record_file(self) -> Path:
        return self.path / "run.json"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def output(self) -> Path:
        return self.path / "output.log"

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """The folder for the metrics that the run keeps of its trainings."""
        return self.path / "metrics"

    @property
    def notices(self) -> Path:
        """What became of the notices about the run."""
        return self.path / "notices.jsonl"

    @property
    def stop(self) -> Path:
        """Exists once somebody has asked the run to stop."""
        return self.path / "stop"

    def record(self) -> RunRecord | None:
        """Return what run.json says; None when it is missing, damaged, or of an unknown version."""
        try:
            return self.read_record()
        except (OSError, RecordError):
            return None

    def read_record(self) -> RunRecord:
        """Return what run.json says.

        Raises:
            OSError: it is missing, or may not be read.
            RecordError: it is damaged, or of an unknown version.
        """
        return read_run(parse_object(self.record_file.read_bytes()))

    def create(self, config: Path) -> None:
        """Make the folder, with a copy of the config as it is now.

        Raises:
            UserError: it cannot be written.
        """
        try:
            self.path.mkdir(parents=True)
            if config.is_file():
                self.config.write_bytes(config.read_bytes())
        except OSError as error:
            hint = "free some disk space, or change the folder's permissions"
            raise UserError.at(self.path, f"cannot be written: {error.strerror}", hint=hint) from error

    def write_record(self, pid: int, command: Sequence[str], targets: Sequence[str]) -> RunRecord:
        """Write run.json for a process that was just started (or for this one).

        Raises:
            UserError: it cannot be written.
        """
        record = RunRecord(
            id=self.id,
            pid=pid,
            create_time=psutil.Process(pid).create_time(),
            boot_time=psutil.boot_time(),
            host=socket.gethostname(),
            command=tuple(command),
            started=time.time(),
            targets=tuple(targets),
            leads_group=os.getpgid(pid) == pid,
        )
        write_json(self.record_file, to_json(record))
        return record


def new_run(root: Path) -> RunFolder:
    """Return the folder of a run that begins now; it is not made yet. Ids sort by time.

    They tell the local time, or the second after the last run if its time is later: clocks are put back, and a
    container's may be that of another time zone.

    An id that was given beforehand (HV15_NEW_RUN) begins only one run: its folder cannot be made twice.
    """
    if given := os.environ.get(NEW_RUN_VARIABLE):
        return RunFolder(root, given)
    begun = datetime.now()
    for last in history(root)[:1]:
        with suppress(ValueError):  # a folder that somebody else made
            begun = max(begun, datetime.strptime(last.id[:_LENGTH], _TIME) + timedelta(seconds=1))
    return RunFolder(root, f"{begun:{_TIME}}-{secrets.token_hex(2)}")


def history(root: Path) -> list[RunFolder]:
    """Return all runs of a project that are kept, newest first."""
    try:
        names = sorted(entry.name for entry in os.scandir(ProjectPaths(root).runs) if entry.is_dir())
    except OSError:
        return []
    return [RunFolder(root, name) for name in reversed(names)]


def project_config(project: Path) -> Path:
    """Return the config file of a project that is given as its folder or as the file.

    Raises:
        UserError: there is none.
    """
    config = config_file(project)
    if not config.is_file():
        hint = "name a project folder, or make one with `hv15 new FOLDER`"
        raise UserError.at(config, "no such file", hint=hint)
    return _straight(config)


def _straight(path: Path) -> Path:
    """Return a path absolute and without `..`, so that it holds when a folder that was only on its way is gone.

    Links in what follows the last `..` stay as they are named.
    """
    parts = path.absolute().parts
    if ".." not in parts:
        return Path(*parts)
    follows = len(parts) - parts[::-1].index("..")
    return Path(*parts[:follows]).resolve().joinpath(*parts[follows:])


def append_event(path: Path, event: RunEvent) -> None:
    """Append an event to a file of events.

    Raises:
        OSError: as the system says.
    """
    append_object(path, event_line(event))
