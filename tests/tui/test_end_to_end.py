"""A person at a real terminal: start, quit, attach again, stop, resume, see it finish; a killed run is seen as dead."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from hv15.demo.clips import render_demo_clips
from hv15.demo.models import make_demo_models
from hv15.runs import control, lock
from hv15.runs.processes import kill
from hv15.runs.record import history
from hv15.runs.state import RunState, current
from tests.runs.project import SAVES, make_project, wait_until
from tests.tui.terminal import Terminal, dashboard_words
from tests.workflow.project import merge, small_config
from tui.project_files import ProjectFiles
from tui.watcher import TICK_S

if shutil.which("tmux") is None:
    message = "tmux is missing: the dashboard was NOT tried in a real terminal (apt-get install tmux)"
    warnings.warn(message, stacklevel=1)
    pytest.skip(message, allow_module_level=True)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A project folder; whatever still runs there in the end is killed."""
    yield tmp_path / "project"
    for run in history(tmp_path / "project"):
        if record := run.record():
            kill(record)


def tiny_project(root: Path, steps: int) -> Path:
    """The demo's workflow, small, with models that are made beforehand."""
    make_demo_models(root / "models/demo")
    render_demo_clips(root / "clips")
    config = small_config({"source": "demo", "directory": "models"})
    config = merge(config, {"cache": {"shards": 1}, "train": {"max_train_steps": steps, "state_every_n_steps": 50}})
    (root / "config.yaml").write_text(yaml.safe_dump(config))
    return root


def start_from_screen(terminal: Terminal) -> None:
    """Press what starts a run: first the plan is shown, then it begins."""
    terminal.press("s")
    terminal.wait_for(r"\d+ jobs?: ")
    terminal.press("s")
    terminal.wait_for("▶ running|◌ starting")


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_start_quit_attach_stop_resume_finish(root: Path) -> None:
    tiny_project(root, steps=150)
    with Terminal(dashboard_words(root)) as terminal:
        terminal.wait_for("no run yet")
        start_from_screen(terminal)
        terminal.wait_for(r"step \d+/150")
        terminal.press("q")
        terminal.wait_for_end()
    assert lock.holder(root), "the run ended with the dashboard"

    with Terminal(dashboard_words(root), columns=80, rows=24) as terminal:
        terminal.wait_for("▶ running")
        terminal.wait_for(r"step \d+/150")
        terminal.press("x")
        terminal.wait_for("Save and stop")
        terminal.press("x")
        terminal.wait_for("■ stopped")
        assert not lock.holder(root)
        assert not control.orphans(root)
        stopped_at = int(terminal.wait_for(r"step (\d+)/150")[1])
        assert stopped_at < 150, "the training was over before it could be stopped"

        start_from_screen(terminal)
        terminal.resize(120, 40)
        terminal.wait_for("✓ finished", seconds=1200)
        terminal.press("q")
        terminal.wait_for_end()
    assert (root / "results/lora.safetensors").is_file()
    assert [run.record() is not None for run in history(root)] == [True, True]
    steps = [line for line in (root / "results/train/metrics.jsonl").read_text().splitlines() if '"step"' in line[:20]]
    assert len(steps) == 150, "it began again instead of resuming"


def test_a_run_is_looked_at_within_two_seconds(root: Path) -> None:
    run_source = next(source for source in ProjectFiles(root / "config.yaml").sources() if source.name == "run")
    assert run_source.interval_s + TICK_S < 2.0


@pytest.mark.slow
def test_a_killed_run_is_seen_as_dead(root: Path) -> None:
    """Its lock is free at once. What the screen says then is tested in test_run_screen.py as well."""
    make_project(root, first=SAVES)
    with Terminal(dashboard_words(root), columns=80, rows=24) as terminal:
        terminal.wait_for("no run yet")
        run = control.start(root, ["all"], ("--cores", "1"))
        wait_until((root / "at-work").exists)
        terminal.wait_for("▶ running")
        record = run.record()
        assert record is not None
        os.kill(record.pid, signal.SIGKILL)
        began = time.monotonic()
        terminal.wait_for("† died", seconds=20)
        print(f"seen as dead after {time.monotonic() - began:.1f} s")
        terminal.wait_for(r"pid \d+ of a dead run still works here")
        terminal.press("x")
        terminal.wait_for("Save and end them")
        terminal.press("x")
        wait_until(lambda: not control.orphans(root))
        found = current(root)
        assert found is not None
        assert found.state in (RunState.DIED, RunState.STOPPED)
        terminal.press("q")
        terminal.wait_for_end()


def test_the_demo_runs_is_stopped_and_leaves_nothing() -> None:
    with Terminal([sys.executable, "-m", "hv15.cli", "tui", "--demo"], columns=80, rows=24) as terminal:
        terminal.wait_for("▶ running")
        terminal.press("x")
        terminal.wait_for("Save and stop")
        terminal.press("x")
        terminal.wait_for("■ stopped")
        terminal.press("4")
        terminal.wait_for("samples")
        terminal.press("q")
        terminal.wait_for_end()
