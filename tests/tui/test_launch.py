"""The dashboard as a program in a real terminal: what ends it, what is left then, and where it does not begin."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import psutil
import pytest

from tests.runs.project import wait_until
from tests.tui.watched import project

WORDS = [sys.executable, "-m", "hv15.cli", "tui"]
AT_ONCE_S = 5.0
"""A busy machine gets more than the second that it takes."""


class PseudoTerminal:
    """A terminal whose other end is ours, with a program in it."""

    def __init__(self, words: list[str]) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.settings = termios.tcgetattr(slave)
        self.slave = slave
        self.said = b""

        def lead() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        environment = os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
        self.process = subprocess.Popen(
            words, stdin=slave, stdout=slave, stderr=slave, env=environment, preexec_fn=lead
        )

    def read(self, seconds: float = 0.1) -> None:
        """Take what it has written."""
        while select.select([self.master], [], [], seconds)[0]:
            try:
                self.said += os.read(self.master, 1 << 16)
            except OSError:  # closed
                return

    def wait_for(self, words: bytes) -> None:
        def come() -> bool:
            self.read()
            return words in self.said

        wait_until(come)

    def wait_for_end(self) -> float:
        """Wait until it has ended; how many seconds that took."""
        began = time.monotonic()
        while self.process.poll() is None and time.monotonic() < began + 60:
            with contextlib.suppress(OSError, ValueError):
                self.read(0.02)
        return time.monotonic() - began

    def close(self) -> None:
        """Close the window."""
        os.close(self.slave)
        os.close(self.master)
        self.master = -1


@pytest.mark.parametrize("how", [pytest.param("SIGTERM", marks=pytest.mark.slow), "closed"])
def test_a_signal_or_a_closed_terminal_ends_it_at_once_and_leaves_nothing(tmp_path: Path, how: str) -> None:
    terminal = PseudoTerminal([*WORDS, str(project(tmp_path))])
    terminal.wait_for(b"no run yet")
    os.write(terminal.master, b"s")  # asks what would run, in processes of their own
    wait_until(lambda: psutil.Process(terminal.process.pid).children())
    beside = psutil.Process(terminal.process.pid).children(recursive=True)
    if how == "SIGTERM":
        terminal.process.terminate()
    else:
        terminal.close()
    assert terminal.wait_for_end() < AT_ONCE_S
    assert terminal.process.returncode == 128 + (signal.SIGTERM if how == "SIGTERM" else signal.SIGHUP)
    assert not psutil.wait_procs(beside, timeout=10)[1]
    if how == "SIGTERM":
        terminal.read()
        assert b"\x1b[?1049l" in terminal.said, "the screen from before is back"
        assert termios.tcgetattr(terminal.slave) == terminal.settings


@pytest.mark.parametrize(
    "stream", ["stdin", *(pytest.param(f"std{each}", marks=pytest.mark.slow) for each in ("out", "err"))]
)
def test_it_refuses_pipes_in_a_sentence(tmp_path: Path, stream: str) -> None:
    master, slave = pty.openpty()
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), slave) | {stream: subprocess.PIPE}
    done = subprocess.Popen([*WORDS, str(project(tmp_path))], **streams)  # type: ignore[call-overload]
    _, errors = done.communicate(timeout=120)
    said = errors if stream == "stderr" else os.read(master, 4096)
    os.close(slave)
    os.close(master)
    assert done.returncode == 2
    assert b"the dashboard needs a terminal" in said
    assert b"hv15 status" in said
    assert b"Traceback" not in said
