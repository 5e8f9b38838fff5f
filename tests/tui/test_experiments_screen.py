"""The screen Experiments: states, progress, which one is the best, and what is drawn over one another."""

from __future__ import annotations

from pathlib import Path

import pytest

from hv15.records.failures import Failure, FailureKind
from hv15.records.paths import ProjectPaths
from hv15.records.stage_names import stage_of_run
from tests.comparison.made_up import make_training
from tests.tui.watched import Watched, dashboard, settle, text_of
from tui.app import Dashboard
from tui.data.jobs import JobState
from tui.data.rerun import DueStage, Rerun
from tui.dialogs.start import StartDialog
from tui.messages import OpenLog
from tui.screens.experiments import ExperimentsScreen
from tui.watcher import Watcher
from tui.widgets.experiments_table import ExperimentsTable

CONFIG = """\
models: {source: demo}
datasets: [{video_directory: clips, resolution: [64, 64], target_frames: [9]}]
train: {max_train_steps: 20, validation: {fraction: 0.1, noise_levels: even}}
experiments:
  fast: {train.learning_rate: 1.0e-3}
  new: {train.network_dim: 4}
sweep:
  grid: {train.discrete_flow_shift: [1, 3]}
  seeds: [1, 2]
"""
SWEPT = [f"discrete_flow_shift-{shift}_seed-{seed}" for shift in (1, 3) for seed in (1, 2)]


def project(root: Path) -> None:
    """Of the sweep, three are done and one is half-way; `fast` was stopped, `new` has not begun."""
    for name, shift, seed, loss in zip(
        SWEPT, (1.0, 1.0, 3.0, 3.0), (1, 2, 1, 2), (0.42, 0.44, 0.30, 0.34), strict=True
    ):
        paths = make_training(root, name, losses=(0.9, loss), discrete_flow_shift=shift, seed=seed)
        if name != SWEPT[3]:
            paths.lora.write_bytes(b"")
    make_training(root, "fast", steps=10, losses=(0.8,), learning_rate=1e-3)
    make_training(root, "former", losses=(0.5,), network_dim=2)
    (root / "config.yaml").write_text(CONFIG)


def experiments(root: Path) -> Dashboard:
    app = dashboard(root, at="experiments")
    files = app.files
    assert isinstance(files, Watched)
    files.real_experiments = True
    app.watcher = Watcher(app, files.sources())
    return app


async def test_states_progress_and_the_best(tmp_path: Path) -> None:
    project(tmp_path)
    app = experiments(tmp_path)
    async with app.run_test(size=(140, 40)) as pilot:
        await settle(pilot)
        rows = app.screen.query_one(ExperimentsTable).rows
        assert [row.name for row in rows] == ["fast", "new", *SWEPT, "former"], "in the order of the config"
        assert [str(row.state) for row in rows] == ["cut short", "not begun", *["done"] * 3, "cut short", "cut short"]
        assert [row.name for row in rows if row.is_best] == [SWEPT[2]]
        shown = text_of(app)
        assert "★" in shown
        assert "10/20" in shown
        assert "discrete_flow_shift 3, seed 1" in shown
        assert "no longer in the config" in shown
        assert "3 done" in shown
        await pilot.press("end", "up", "up")
        await pilot.pause()
        assert "0.320 ± 0.028 over 2 (" in " ".join(text_of(app).split())
        await pilot.press("b")
        await pilot.pause()
        rows = app.screen.query_one(ExperimentsTable).rows
        assert [row.name for row in rows][:3] == [SWEPT[2], SWEPT[3], SWEPT[0]]
        assert rows[-1].name == "new"


async def test_what_a_run_does_with_each(tmp_path: Path) -> None:
    from tests.tui.watched import job, run_view

    project(tmp_path)
    app = experiments(tmp_path)
    files = app.files
    assert isinstance(files, Watched)
    why = Failure("it diverged\nat step 5", "lower the rate", FailureKind.USER)
    jobs = (
        job(1, JobState.RUNNING, rule="train", experiment="fast"),
        job(2, JobState.WAITING, rule="train", experiment="new"),
        job(3, JobState.FAILED, rule="train", experiment=SWEPT[0], failure=why),
    )
    files.jobs_of_run, files.is_alive = jobs, True
    async with app.run_test(size=(120, 30)) as pilot:
        await settle(pilot, run=run_view())
        await settle(pilot)
        rows = {row.name: str(row.state) for row in app.screen.query_one(ExperimentsTable).rows}
        assert (rows["fast"], rows["new"], rows[SWEPT[0]], rows[SWEPT[1]]) == ("running", "waiting", "failed", "done")
        assert "train the LoRA" in text_of(app), "what its job does"
        await pilot.press("down", "down")
        await pilot.pause()
        assert "failed: train the LoRA: it diverged" in text_of(app)


async def test_losses_that_cannot_be_compared_have_no_star(tmp_path: Path) -> None:
    for name, shift in (("a", 1.0), ("b", 7.0)):
        make_training(tmp_path, name, losses=(0.5,), sigmas=(shift / 10,) * 9, discrete_flow_shift=shift)
    app = experiments(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert "★" not in text_of(app)
        assert "cannot be compared" in text_of(app)


async def test_curves_are_drawn_over_one_another_and_named_by_what_differs(tmp_path: Path) -> None:
    project(tmp_path)
    app = experiments(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await pilot.press("a")
        await settle(pilot)
        assert [name for name, _ in app.files.overlaid] == ["fast", *SWEPT, "former"], "new has no curves"
        table = app.screen.query_one(ExperimentsTable)
        assert (table.taken["fast"], table.taken[SWEPT[0]]) == ("1", "2")
        await pilot.press("3")
        await settle(pilot)
        assert f"2 {SWEPT[0]}: discrete_flow_shift 1, learning_rate 0.0001, network_dim" in " ".join(
            text_of(app).split()
        )
        await pilot.press("9")
        await settle(pilot)
        await pilot.press("a", "end", "space")
        await settle(pilot)
        assert app.files.overlaid == (("former", ProjectPaths(tmp_path, "former").metrics),)
        await pilot.press("space")
        await settle(pilot)
        assert app.files.overlaid == ()
        assert app.screen.query_one(ExperimentsTable).taken == {}


async def test_the_finished_ones_that_are_out_of_date(tmp_path: Path) -> None:
    project(tmp_path)
    app = experiments(tmp_path)
    files = app.files
    assert isinstance(files, Watched)
    due = [stage_of_run(name, "train") for name in (SWEPT[1], "new")]
    files.plan = Rerun(tuple(DueStage(name, name, ("seed 1 -> 2",)) for name in due))
    async with app.run_test(size=(120, 30)) as pilot:
        await settle(pilot)
        await pilot.press("d")
        await settle(pilot)
        await settle(pilot)
        assert files.asked[-1] == (None, ("experiments",))
        rows = {row.name: str(row.state) for row in app.screen.query_one(ExperimentsTable).rows}
        assert (rows[SWEPT[0]], rows[SWEPT[1]], rows["new"]) == ("done", "stale", "not begun")


async def test_all_are_started_and_a_log_is_opened(tmp_path: Path) -> None:
    project(tmp_path)
    app = experiments(tmp_path)
    files = app.files
    assert isinstance(files, Watched)
    told: list[object] = []
    async with app.run_test(size=(120, 40), message_hook=told.append) as pilot:
        await settle(pilot)
        await pilot.press("s")
        await settle(pilot)
        assert isinstance(app.screen, StartDialog)
        await pilot.press("s")
        await settle(pilot)
        assert files.started == [["experiments"]]
        assert isinstance(app.screen, ExperimentsScreen)
        await pilot.press("enter")
        await settle(pilot)
        opened = {each.path for each in told if isinstance(each, OpenLog)}
        assert opened == {ProjectPaths(tmp_path, "fast").log("train")}


@pytest.mark.parametrize("size", [(80, 24), pytest.param((200, 55), marks=pytest.mark.slow)])
async def test_a_config_without_experiments_and_a_broken_one(tmp_path: Path, size: tuple[int, int]) -> None:
    app = experiments(tmp_path)
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        assert "the config has no experiments" in text_of(app)
        assert "Exp" in text_of(app).splitlines()[1]
        (tmp_path / "config.yaml").write_text(CONFIG + "  wrong: 1\n")
        await settle(pilot)
        assert "wrong" in text_of(app)
        (tmp_path / "config.yaml").write_text(CONFIG)
        await settle(pilot)
        assert [row.name for row in app.screen.query_one(ExperimentsTable).rows] == ["fast", "new", *SWEPT]
