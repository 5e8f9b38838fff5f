"""The dashboard on the recorded run, at any moment of it, on a machine that is made up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from textual.pilot import Pilot

from tui.app import Dashboard
from tui.data.system import Gpu, GpuProcess, ScriptedGpus
from tui.demo.replay import Replay
from tui.project_files import ProjectFiles

GIB = 2**30


def replay_at(root: Path, share: float, *, clock: Callable[[], float] = time.time) -> Replay:
    """Return the recording after a share of its length; 1 and more: it has ended."""
    replay = Replay(root, clock=clock)
    replay.began -= share * replay.seconds
    replay.advance()
    return replay


def one_gpu(used: int = 17 * GIB) -> ScriptedGpus:
    """A GPU that somebody else uses too."""
    processes = (GpuProcess(pid=4242, used=GIB, ours=False),)
    gpu = Gpu(0, "GPU of the test", 98.0, used, 24 * GIB, 63.0, 280.0, 350.0, processes)
    return ScriptedGpus(lambda: (gpu,))


def dashboard(root: Path, gpus: ScriptedGpus | None = None, *, clock: Callable[[], float] = time.time) -> Dashboard:
    """Return the dashboard on a project folder."""
    config = root / "config.yaml"
    gpus = gpus or ScriptedGpus(lambda: (), note="no GPU here")
    return Dashboard(config, ProjectFiles(config, gpus=gpus, clock=clock), host="demo")


async def until(pilot: Pilot[None], condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait for something that must come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        await asyncio.sleep(0.02)
        await pilot.pause()
