"""A temporary folder in which the recorded run is replayed while the dashboard is open."""

from __future__ import annotations

import math
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hv15.runs import lock
from hv15.runs.record import RunFolder
from hv15.units import GIB
from tui.data.system import Gpu, ScriptedGpus
from tui.demo.timeline import read_timeline

STARTS_WITHIN_S = 20.0
LASTS_S = 120.0
"""How long the replay takes at most: a longer recording runs faster than it was made."""


@contextmanager
def demo_project(speed: float | None = None) -> Iterator[Path]:
    """Start the replay in a temporary folder, yield its config file, and remove everything at the end."""
    if speed is None:
        speed = max(1.0, read_timeline().seconds / LASTS_S)
    folder = Path(tempfile.mkdtemp(prefix="hv15-demo-"))
    root = folder / "demo"
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "tui.demo.replay", str(root), "--speed", str(speed)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    before = {number: signal.signal(number, _leave) for number in (signal.SIGHUP, signal.SIGTERM)}
    try:
        deadline = time.monotonic() + STARTS_WITHIN_S
        while not _has_begun(root) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        yield root / "config.yaml"
    finally:
        process.kill()
        process.wait()
        end_what_was_started(root)
        shutil.rmtree(folder, ignore_errors=True)
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, _: object) -> None:
    """Leave in the way that cleans up, also when the terminal was closed."""
    raise SystemExit(128 + number)


def _has_begun(root: Path) -> bool:
    """Whether the replay holds the lock and has written its record."""
    running = lock.holder(root)
    return bool(running) and RunFolder(root, running or "").record() is not None


def end_what_was_started(root: Path) -> None:
    """Kill a run that somebody started in the demo's folder, because the folder is removed."""
    from hv15.runs.processes import kill
    from hv15.runs.record import history

    for run in history(root):
        if run.id.endswith("-demo"):
            continue  # a recorded one: its process is the replay, or does not exist
        if record := run.record():
            kill(record)


def made_up_gpu(clock: Callable[[], float] = time.time) -> ScriptedGpus:
    """A GPU for the demo, since the recording was made without one; its name says that it is not real."""
    began = clock()

    def read() -> tuple[Gpu, ...]:
        age = clock() - began
        busy = 94 + 5 * math.sin(age / 7)
        used = int((17.5 + min(3.0, age / 20) + 0.6 * math.sin(age / 3)) * GIB)
        warm = 61 + 3 * math.sin(age / 30)
        return (Gpu(0, "made up for the demo", used, 24 * GIB, busy, warm, power=290.0, power_limit=350.0),)

    return ScriptedGpus(read)
