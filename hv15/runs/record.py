"""What is kept about each run, and where."""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import psutil

from hv15.atomic import write_json
from hv15.errors import UserError
from hv15.records.paths import config_file

FOLDER = ".hv15"
RUN_VARIABLE = "HV15_RUN"
"""The environment variable that names the run to its jobs, and by which its processes are found again."""


@dataclass(frozen=True)
class RunRecord:
    """run.json: enough to find the run's processes, or to see that they are elsewhere."""

    id: str
    pid: int
    create_time: float
    """When the process was made, as psutil says (seconds since 1970): another process may get the same pid later."""
    boot_time: float
    """When the machine was started (seconds since 1970)."""
    host: str
    command: list[str]
    started: float
    """Seconds since 1970."""
    config_file: str = "config.yaml"
    targets: list[str] = field(default_factory=list)
    leads_group: bool = False
    """Whether the process group is the run's own, so that a signal to the group reaches nobody else."""


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    root: Path
    """The project folder."""
    id: str

    @property
    def path(self) -> Path:
        return self.root / FOLDER / "runs" / self.id

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
    def stop(self) -> Path:
        return self.path / "stop"

    def record(self) -> RunRecord | None:
        """Return what run.json says; None when it is missing, damaged or may not be read."""
        try:
            content = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
            known = {each.name for each in fields(RunRecord)}
            return RunRecord(**{name: value for name, value in content.items() if name in known})
        except (OSError, ValueError, TypeError, AttributeError):
            return None

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
            raise UserError(f"{self.path}: cannot be written: {error.strerror}", hint=hint) from error

    def write_record(self, pid: int, command: Sequence[str], config: Path, targets: Sequence[str]) -> RunRecord:
        """Write run.json for a process that was just started (or for this one)."""
        record = RunRecord(
            id=self.id,
            pid=pid,
            create_time=psutil.Process(pid).create_time(),
            boot_time=psutil.boot_time(),
            host=socket.gethostname(),
            command=list(command),
            started=time.time(),
            config_file=str(config),
            targets=list(targets),
            leads_group=os.getpgid(pid) == pid,
        )
        write_json(self.path / "run.json", asdict(record))
        return record


def new_run(root: Path) -> RunFolder:
    """Return the folder of a run that begins now; it is not made yet. Ids sort by time."""
    return RunFolder(root, time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(2))


def history(root: Path) -> list[RunFolder]:
    """Return all runs of a project that are still known, newest first."""
    try:
        names = sorted(entry.name for entry in os.scandir(root / FOLDER / "runs") if entry.is_dir())
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
        raise UserError(f"{config}: no such file", hint=hint)
    return config.absolute()


def append_json(path: Path, value: Mapping[str, Any]) -> None:
    """Append one line to a .jsonl file in one write.

    Raises:
        OSError: as the system says.
    """
    line = json.dumps(value, ensure_ascii=False, default=str) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(descriptor, line.encode("utf-8", "backslashreplace"))
    finally:
        os.close(descriptor)
