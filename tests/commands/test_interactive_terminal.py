"""`hv15 sample -i` at a real terminal: keys, Ctrl-C, a terminal that is closed, and the history of the next session."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import stat
import sys
import termios
import time
from pathlib import Path

import pytest

from hv15 import cli
from tests.commands.workbench import Workbench
from tests.forked import Stream, forked

CLOSED = b"closed"


def test_at_a_terminal(done: Workbench, tmp_path: Path) -> None:
    """A prompt, the commands, Ctrl-C, and a history that is there again."""
    path = tmp_path / "state/hv15/sample-history"
    path.parent.mkdir(parents=True)
    path.write_text("/seed y\n")  # of an earlier session
    three_up = b"\x1b[A" * 3
    shown = _terminal(done, tmp_path / "state", [b"/help\r", b"/seed x\r", b"\x03", three_up + b"\r", b"\x04"])
    assert "prompt> " in shown
    assert "/size 720p 16:9" in shown
    assert "error: /seed x: expected a whole number" in shown
    assert "/quit leaves" in shown  # said at Ctrl-C; Ctrl-D leaves
    assert "error: /seed y: expected a whole number" in shown
    assert path.read_text().splitlines() == ["/seed y", "/help", "/seed x", "/seed y"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.slow
def test_a_terminal_that_is_closed_leaves_the_history_and_no_half_written_file(done: Workbench, tmp_path: Path) -> None:
    out, state = tmp_path / "out", tmp_path / "state"
    shown = _terminal(done, state, [b"/steps 500\r", b"a red circle\r", CLOSED], "-o", str(out))
    assert "steps" in shown
    assert not [path for path in out.rglob("*") if path.is_file()]
    assert (state / "hv15/sample-history").read_text().splitlines() == ["/steps 500", "a red circle"]


def _terminal(done: Workbench, state: Path, keys: list[bytes], *words: str) -> str:
    """Type into a session at a terminal, each time after a prompt; return what it shows.

    `CLOSED` closes the terminal as soon as a sample is denoised.
    """
    own, theirs = pty.openpty()
    command = ["sample", "-i", "--project", str(done.root), *words]
    process = forked(_run, command, Stream(theirs), stderr=theirs, XDG_STATE_HOME=str(state), TERM="dumb")
    os.close(theirs)
    shown, waiting, asked = b"", list(keys), 0
    end = time.monotonic() + 400
    while time.monotonic() < end:
        if not select.select([own], [], [], 0.1)[0]:
            continue
        try:
            part = os.read(own, 4096)
        except OSError:  # the session has closed its terminal
            break
        shown += part
        if waiting == [CLOSED] and b"denoise" in shown:
            break
        if waiting and waiting[0] != CLOSED and shown.count(b"prompt> ") > asked:
            asked = shown.count(b"prompt> ")
            time.sleep(0.5 if waiting[0] == b"\x03" else 0)  # its prompt is there before readline notices Ctrl-C
            os.write(own, waiting.pop(0))
    with contextlib.suppress(OSError):
        os.close(own)
    process.join(100)
    assert process.exitcode == (-signal.SIGHUP if waiting == [CLOSED] else 0), shown
    return shown.decode()


def _run(command: list[str], terminal: Stream) -> None:
    """Run a command at a terminal that is this process's own, so that Ctrl-C reaches it."""
    os.setsid()
    fcntl.ioctl(terminal.descriptor, termios.TIOCSCTTY, 0)
    for number in range(3):
        os.dup2(terminal.descriptor, number)
    os.close(terminal.descriptor)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    sys.exit(cli.main(command))
