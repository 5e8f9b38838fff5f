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

from tests.commands.workbench import Workbench
from tests.workflow.project import environment

CLOSED = b"closed"


def test_at_a_terminal(done: Workbench, tmp_path: Path) -> None:
    """A prompt, the commands, Ctrl-C, and a history that is there again, also where the terminal was closed."""
    state = tmp_path / "state"
    first = _terminal(done, state, [b"/help\r", b"/seed x\r", b"\x03", CLOSED])
    assert "prompt> " in first
    assert "/size 720p 16:9" in first
    assert "error: /seed x: expected a whole number" in first
    assert "/quit leaves" in first
    path = state / "hv15" / "sample-history"
    assert path.read_text().splitlines() == ["/help", "/seed x"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    second = _terminal(done, state, [b"\x1b[A\r", b"\x04"])  # a line up; Ctrl-D
    assert "error: /seed x: expected a whole number" in second


def _terminal(done: Workbench, state: Path, keys: list[bytes]) -> str:
    """Type into a session at a terminal, each time after a prompt; return what it shows. `CLOSED` closes it."""
    own, theirs = pty.openpty()
    command = [sys.executable, "-m", "hv15.cli", "sample", "-i", "--project", str(done.root)]
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
        if waiting and shown.count(b"prompt> ") > asked:
            asked = shown.count(b"prompt> ")
            time.sleep(0.5)  # readline shows its prompt a moment before it notices Ctrl-C
            if (keys_now := waiting.pop(0)) == CLOSED:
                break
            os.write(own, keys_now)
    with contextlib.suppress(OSError):
        os.close(own)
    assert process.wait(timeout=100) == (-signal.SIGHUP if CLOSED in keys else 0), shown
    return shown.decode()


def _controls() -> None:
    """Make the standard input the terminal of the process, so that Ctrl-C reaches it."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
