"""The dashboard on the recorded run, at any moment of it, on a machine that is made up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from textual.app import App
from textual.pilot import Pilot

from tests.tui.first import begun_at
from tui.app import Dashboard
from tui.data.system import Gpu, GpuProcess, ScriptedGpus
from tui.demo.replay import Replay
from tui.project_files import ProjectFiles
from tui.screens.base import DashboardScreen
from tui.themes import DARK

GIB = 2**30
SOONER = 5
"""After so many looks in vain, all is read."""


class Themed(App[None]):
    """For a single widget: the dashboard's colours, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.register_theme(DARK)
        self.theme = DARK.name


def replay_at(root: Path, share: float, *, clock: Callable[[], float] = time.time) -> Replay:
    """Return the recording after a share of its length; 1 and more: it has ended."""
    return Replay(root, clock=clock, at=share)


def one_gpu(used: int = 17 * GIB) -> ScriptedGpus:
    """A GPU that somebody else uses too."""
    processes = (GpuProcess(pid=4242, used=GIB, of_this_run=False),)
    gpu = Gpu(0, "GPU of the test", used, 24 * GIB, 98.0, 63.0, 280.0, 350.0, processes)
    return ScriptedGpus(lambda: (gpu,))


def dashboard(
    root: Path, gpus: ScriptedGpus | None = None, *, at: str = "run", clock: Callable[[], float] = time.time
) -> Dashboard:
    """Return the dashboard on a project folder."""
    config = root / "config.yaml"
    gpus = gpus or ScriptedGpus(lambda: (), note="no GPU here")
    return begun_at(at, config, ProjectFiles(config, gpus=gpus, clock=clock), "demo")


async def show(pilot: Pilot[None], app: Dashboard, key: str, name: str) -> DashboardScreen:
    """Go to a screen by its key and wait until it is there."""
    await pilot.press(f"alt+{key}")  # from a text field too
    await until(pilot, lambda: getattr(app.screen, "NAME", "") == name and app.screen.is_mounted)
    assert isinstance(app.screen, DashboardScreen)
    return app.screen


async def until(pilot: Pilot[None], condition: Callable[[], object], seconds: float = 300.0) -> None:
    """Wait for something that must come. What is read again and again only is read a little sooner."""
    begin, rounds = time.monotonic(), 0
    while not condition():
        assert time.monotonic() < begin + seconds, f"what was waited for did not happen on {pilot.app.screen}"
        await asyncio.sleep(0.02)
        rounds += 1
        if rounds % SOONER == 0 and isinstance(pilot.app, Dashboard):
            pilot.app.watcher.refresh()
        await pilot.pause()
