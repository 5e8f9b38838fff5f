"""A real terminal for a program: tmux with a server of its own."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

REPOSITORY = Path(__file__).parents[2]


class Terminal:
    """One tmux session that runs one program; the session is gone when the program has ended."""

    def __init__(self, words: Sequence[str], *, columns: int = 120, rows: int = 40) -> None:
        self.server = f"hv15-test-{os.getpid()}-{time.monotonic_ns()}"
        self.program = shlex.join(words)
        kept = {"TERM": "tmux-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8", "TEXTUAL_ANIMATIONS": "none"}
        options = [word for name, value in kept.items() for word in ("-e", f"{name}={value}")]
        size = ("-x", str(columns), "-y", str(rows))
        self._tmux("-f", "/dev/null", "new-session", "-d", *size, "-c", str(REPOSITORY), *options, self.program)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self.alive:
            print(self.text, file=sys.stderr)
        self._tmux("kill-server", check=False)

    def _tmux(self, *words: str, check: bool = True) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TMUX")}
        done = subprocess.run(
            ["tmux", "-L", self.server, *words], capture_output=True, text=True, check=False, env=environment
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    @property
    def alive(self) -> bool:
        """Whether the program still runs."""
        return bool(self._tmux("list-sessions", check=False).strip())

    @property
    def text(self) -> str:
        """What is on the screen, without colours."""
        return self._tmux("capture-pane", "-p", check=False)

    def press(self, *keys: str) -> None:
        """Type keys, by tmux's names."""
        self._tmux("send-keys", *keys)

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size."""
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def wait_for(self, pattern: str, seconds: float = 600.0) -> re.Match[str]:
        """Wait until something stands on the screen."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text)):
            assert self.alive, f"the program has ended: {self.program}"
            assert time.monotonic() < deadline, f"{pattern} did not come:\n{self.text}"
            time.sleep(0.05)
        return found

    def wait_for_end(self, seconds: float = 60.0) -> None:
        """Wait until the program has ended."""
        deadline = time.monotonic() + seconds
        while self.alive:
            assert time.monotonic() < deadline, f"it still runs:\n{self.text}"
            time.sleep(0.05)


def dashboard_words(project: Path) -> list[str]:
    """The command line of the dashboard."""
    return [sys.executable, "-m", "tui", str(project)]
