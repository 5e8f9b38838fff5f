"""`hv15 sample -i` at a real terminal: keys, Ctrl-C, a terminal that is closed, and the history of the next session."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands.workbench import Workbench
from tests.workflow.project import environment

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
    command = [sys.executable, "-m", "hv15.cli", "sample", "-i", "--project", str(done.root), *words]
    variables = environment() | {"XDG_STATE_HOME": str(state), "TERM": "dumb"}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=variables, start_new_session=True, preexec_fn=_controls
    )
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
    assert process.wait(timeout=100) == (-signal.SIGHUP if waiting == [CLOSED] else 0), shown
    return shown.decode()


def _controls() -> None:
    """Make the standard input the terminal of the process, so that Ctrl-C reaches it."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
