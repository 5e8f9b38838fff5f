"""A command that runs on a config's unsaved text, without touching the project's file.

While the command runs, the text is in a hidden file in the same folder, because relative paths in it start there. Files
that a killed dashboard left behind are removed by the next one.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from hv15.errors import UserError
from hv15.records.json_values import Json, JsonObject, RecordError, parse_object
from hv15.runs import control

LAST_LINES = 12
"""Lines that are shown of a command's output if it printed no record: as in a traceback, the last ones matter."""

_NAME = re.compile(r"\.hv15-trial-(\d+)-\d+\.yaml")
_count = itertools.count()


@dataclass(frozen=True)
class Completed:
    """The outcome of a command."""

    code: int
    """Its exit code; negative for a signal."""
    output: str
    errors: str
    cancelled: bool


class Trial:
    """One command at a time on one text; `cancel` ends it from any thread."""

    def __init__(self, config: Path, text: str | None = None) -> None:
        self.config = config.absolute()
        self.text = text
        self._process: subprocess.Popen[bytes] | None = None
        self._cancelled = False
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def file(self) -> Iterator[Path]:
        """Yield the file to give to the command: the project's own unless the text differs.

        Raises:
            UserError: the folder cannot be written.
        """
        if self.text is None:
            yield self.config
            return
        folder = self.config.parent
        _remove_stale(folder)
        path = folder / f".hv15-trial-{os.getpid()}-{next(_count)}.yaml"
        try:
            with path.open("xb") as file:  # a link of that name is not followed
                file.write(self.text.encode("utf-8", "replace"))
        except OSError as error:
            raise UserError.at(
                folder, f"cannot be written: {error.strerror}", hint="save the file elsewhere, or change permissions"
            ) from error
        try:
            yield path
        finally:
            with contextlib.suppress(OSError):
                path.unlink()

    def ask(self, command: str, *words: str) -> JsonObject | None:
        """Run an hv15 command on the project and return the record that it prints; None if it was cancelled.

        Raises:
            UserError: it could not be started, or it printed no record; then the message is its output.
        """
        with self.file() as file:
            line = [sys.executable, "-P", "-m", "hv15.cli", command, str(file), "--json", *words]
            done = self.run(line, folder=self.config.parent, environment=control.environment())
        if done.cancelled:
            return None
        try:
            return {name: self._named(value, file) for name, value in parse_object(done.output).items()}
        except RecordError as error:
            said = [line for line in done.errors.splitlines() if line.strip()][-LAST_LINES:]
            message = "\n".join(said).removeprefix("error: ") or f"what `hv15 {command}` printed is {error}"
            raise UserError(self._renamed(message, file)) from None

    def run(self, words: Sequence[str], *, folder: Path, environment: dict[str, str]) -> Completed:
        """Run a command to its end, at low priority, and return its output.

        Raises:
            UserError: it cannot be started.
        """
        nice = shutil.which("nice")
        with self._lock:
            if self._cancelled:
                return Completed(-signal.SIGKILL, "", "", True)
            try:
                self._process = subprocess.Popen(
                    [nice, "-n", "5", *words] if nice else list(words),
                    cwd=folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
            except OSError as error:
                raise UserError(f"{words[0]} could not be started: {error.strerror}", hint="reinstall hv15") from error
        output, errors = self._process.communicate()
        return Completed(
            self._process.returncode,
            output.decode("utf-8", "replace"),
            errors.decode("utf-8", "replace"),
            self._cancelled,
        )

    def cancel(self) -> None:
        """End the command and all that it started; nothing can be run afterwards."""
        with self._lock:
            self._cancelled = True
            process = self._process
        if process is not None and process.poll() is None:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)

    def _named(self, value: Json, file: Path) -> Json:
        """Replace the hidden file's name in a value by the config's own."""
        if isinstance(value, dict):
            return {name: self._named(each, file) for name, each in value.items()}
        if isinstance(value, list):
            return [self._named(each, file) for each in value]
        return self._renamed(value, file) if isinstance(value, str) else value

    def _renamed(self, text: str, file: Path) -> str:
        if file == self.config:
            return text
        return text.replace(str(file), str(self.config)).replace(file.name, self.config.name)


def _remove_stale(folder: Path) -> None:
    """Remove what earlier dashboards left behind."""
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            match = _NAME.fullmatch(entry.name)
            if match and not psutil.pid_exists(int(match[1])):
                Path(entry.path).unlink()
