"""The screen Projects: the queue, other projects, and the keys that change the queue."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from hv15.queue.queue_file import VARIABLE, QueueFile
from hv15.records.paths import CONFIG, ProjectPaths
from hv15.records.queue import QueuedState
from hv15.runs import control
from hv15.runs.state import status
from tests.queue.made_up import DONE, keep, order, project, queue, record_run, run_by_hand, states
from tests.records.steps import lines, start_record, step_record
from tests.tui.watched import Watched, dashboard, settle, text_of
from tui.app import Dashboard, main
from tui.data import projects
from tui.dialogs.confirm import Confirm
from tui.messages import OpenLog
from tui.watcher import Watcher
from tui.widgets.projects_table import ProjectsTable


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> QueueFile:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "state"))
    monkeypatch.setattr(projects, "ensure_worker", lambda _: None)
    return QueueFile(tmp_path / "state")


def opened(tmp_path: Path) -> Dashboard:
    (tmp_path / "mine").mkdir(exist_ok=True)
    app = dashboard(tmp_path / "mine", at="projects")
    files = app.files
    assert isinstance(files, Watched)
    files.real_projects = True
    app.watcher = Watcher(app, files.sources())
    return app


def three(tmp_path: Path) -> tuple[Any, ...]:
    failed = project(1, tmp_path / "cats", QueuedState.FAILED, reason="no memory", cure="buy some", ended=1.0)
    running = project(2, tmp_path / "dogs", QueuedState.RUNNING, run="r", started=2.0, devices=("GPU-1",))
    return failed, running, project(3, tmp_path / "owls"), project(4, tmp_path / "pigs", targets=("experiments",))


@asynccontextmanager
async def three_shown(file: QueueFile, tmp_path: Path) -> AsyncIterator[tuple[Dashboard, Pilot[None]]]:
    """The screen, with the queue of `three`, of which the one that runs has a run that is alive."""
    keep(file, queue(*three(tmp_path)))
    app = opened(tmp_path)
    with run_by_hand(tmp_path / "dogs", "r"):
        async with app.run_test(size=(120, 40)) as pilot:
            await settle(pilot)
            yield app, pilot


async def test_the_queue_in_its_order_then_other_projects(file: QueueFile, tmp_path: Path) -> None:
    async with three_shown(file, tmp_path) as (app, pilot):
        rows = app.screen.query_one(ProjectsTable).rows
        assert [(row.name, row.state, row.place) for row in rows] == [
            ("dogs", "running", 0),
            ("owls", "waiting", 1),
            ("pigs", "waiting", 2),
            ("cats", "failed", 0),
            ("mine", "idle", 0),
        ]
        shown = text_of(app)
        assert "one after the other" in shown
        assert "no worker: `hv15 queue` starts it again" in shown
        assert "waiting 2" in shown
        assert "GPU-1" in shown
        await pilot.press("end", "up")
        await pilot.pause()
        assert "what to do buy some" in text_of(app)


def test_a_run_does_not_show_the_training_of_an_earlier_one(file: QueueFile, tmp_path: Path) -> None:
    run = record_run(tmp_path / "mine", "r")
    metrics = ProjectPaths(tmp_path / "mine").metrics
    metrics.parent.mkdir(parents=True)
    started = status(run, None).started
    assert started is not None
    with run_by_hand(tmp_path / "mine", "r"):
        for time, progress in ((started - 60, ""), (started + 60, "step 2 of 8")):
            metrics.write_text(lines(start_record(8), step_record(2, time=time)))
            (row,) = projects.ProjectsReader(tmp_path / "mine" / CONFIG).read().rows
            assert row.progress == progress


async def test_keys_change_the_queue(file: QueueFile, tmp_path: Path) -> None:
    async with three_shown(file, tmp_path) as (app, pilot):
        await pilot.press("down", "J")
        await settle(pilot)
        assert order(file.read()) == [4, 3]
        await pilot.press("K")
        await settle(pilot)
        assert order(file.read()) == [3, 4], "the cursor has stayed on its row"
        await pilot.press("p")
        await settle(pilot)
        assert file.read().paused
        assert "paused · one after the other" in text_of(app)
        await pilot.press("p")
        await settle(pilot)
        assert not file.read().paused
        await pilot.press("x")
        await settle(pilot)
        assert order(file.read()) == [4]
        await pilot.press("end", "up", "r")
        await settle(pilot)
        assert order(file.read()) == [4, 1]
        keep(file, replace(file.read(), projects=(project(9, state=QueuedState.DONE), project(10))))
        await settle(pilot)
        await pilot.press("c")
        await settle(pilot)
        assert states(file.read()) == {10: "waiting"}


async def test_what_runs_is_stopped_only_after_a_question(
    file: QueueFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[Path] = []
    monkeypatch.setattr(control, "stop", stopped.append)
    async with three_shown(file, tmp_path) as (app, pilot):
        await pilot.press("x")
        await settle(pilot)
        assert isinstance(app.screen, Confirm)
        await pilot.press("escape")
        assert stopped == []
        await pilot.press("x")
        await settle(pilot)
        await pilot.press("x")
        await settle(pilot)
        assert stopped == [tmp_path / "dogs"]


async def test_a_project_is_added_and_a_refusal_is_shown(
    file: QueueFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added: list[list[str]] = []

    def run_command(words: list[str], folder: Path) -> str:
        added.append(words)
        keep(file, queue(project(1, tmp_path / "cats"), project(2, folder)))
        return f"added as 1: {folder}\n"

    monkeypatch.setattr(projects, "run_command", run_command)
    app = opened(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await pilot.press("x")
        await settle(pilot)
        assert [each.message for each in app._notifications] == ["it is not in the queue; a adds it"]
        await pilot.press("a")
        await settle(pilot)
        assert added == [["queue", "add", str(tmp_path / "mine/config.yaml")]]
        assert f"added as 1: {tmp_path / 'mine'}" in [each.message for each in app._notifications]
        table = app.screen.query_one(ProjectsTable)
        assert [row.name for row in table.rows] == ["cats", "mine"]
        assert table.current is table.rows[1], "the cursor goes with the project"


async def test_enter_opens_what_a_run_printed(file: QueueFile, tmp_path: Path) -> None:
    keep(file, queue(project(1, tmp_path / "cats", QueuedState.DONE, run="r", ended=1.0)))
    run = record_run(tmp_path / "cats", "r", DONE)
    run.output.write_text("all done\n")
    app = opened(tmp_path)
    told: list[object] = []
    async with app.run_test(size=(120, 40), message_hook=told.append) as pilot:
        await settle(pilot)
        await pilot.press("enter")
        await settle(pilot)
        assert {each.path for each in told if isinstance(each, OpenLog)} == {run.output}


async def test_projects_that_share_a_store_are_known(file: QueueFile, tmp_path: Path) -> None:
    from hv15.cache.register import register

    record_run(tmp_path / "cats", "r", DONE)
    app = opened(tmp_path)
    store = ProjectPaths(tmp_path / "mine").root / "cache"
    register(store, tmp_path / "cats")
    register(store, tmp_path / "gone")
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        rows = app.screen.query_one(ProjectsTable).rows
        assert [(row.name, row.state) for row in rows] == [("mine", "idle"), ("cats", "finished")]


async def test_a_damaged_queue_is_told(file: QueueFile, tmp_path: Path) -> None:
    file.folder.mkdir()
    file.path.write_text("{")
    app = opened(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        words = text_of(app).replace("│", " ").split()  # where a line ends depends on the folder's name
        assert "the queue cannot be used: not JSON" in " ".join(words)


async def test_another_project_is_shown_instead(file: QueueFile, tmp_path: Path) -> None:
    keep(file, queue(project(1, tmp_path / "cats")))
    app = opened(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await pilot.press("end", "o")
        await settle(pilot)
        assert app.next_project is None, "it is shown already"
        await pilot.press("home", "o")
        await pilot.pause()
    assert app.next_project == tmp_path / "cats/config.yaml"


def test_the_dashboard_is_opened_on_one_project_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [tmp_path / name / "config.yaml" for name in ("one", "two")]
    for each in configs:
        each.parent.mkdir()
        each.touch()
    shown: list[Path] = []

    def run(app: Dashboard) -> None:
        shown.append(app.config_file)
        app.next_project = configs[1] if len(shown) == 1 else None

    monkeypatch.setattr(Dashboard, "run", run)
    monkeypatch.setattr("tui.app.ask_terminal", lambda: None)
    assert main(tmp_path / "one") == 0
    assert shown == configs
