"""The screen Runs: the history with its states and changes, what is compared, and what dead runs left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from textual.message import Message

from hv15.runs import control
from hv15.runs.state import RunState
from tests.tui.watched import CONFIG, dashboard, project, run_row, settle, text_of
from tui.data.history import Orphan
from tui.messages import OpenLog
from tui.project_files import RunView
from tui.widgets.pages import Pages
from tui.widgets.runs_table import RunsTable

ENDS = (RunState.FINISHED, RunState.FAILED, RunState.STOPPED, RunState.DIED)


def history(root: Path, count: int = 6) -> RunView:
    rows = tuple(
        run_row(ENDS[number % 4] if number else RunState.RUNNING, number=number, root=root) for number in range(count)
    )
    return RunView(rows[0], rows)


async def test_the_history_tells_state_duration_and_what_was_changed(tmp_path: Path) -> None:
    app = dashboard(tmp_path, run=history(tmp_path), at="runs")
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        shown = text_of(app)
        for words in ("▶ running", "✗ failed", "■ stopped", "† died", "✓ finished", "5:00", "2/5"):
            assert words in shown
        assert "train.learning_rate 0.0001 → 0.0002" in shown


async def test_a_run_is_compared_with_the_run_before_and_with_the_config_of_now(tmp_path: Path) -> None:
    project(tmp_path)
    view = history(tmp_path)
    then = view.rows[1].folder.config
    then.parent.mkdir(parents=True)
    then.write_text(CONFIG.replace("network_dim: 8", "network_dim: 4"))
    app = dashboard(tmp_path, run=view, at="runs")
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await pilot.press("down")
        await settle(pilot)
        details = app.screen.query_one("#run-details", Pages)
        assert "[Changed since the run before 1]" in text_of(app)
        await pilot.press("t")
        await pilot.pause()
        assert "train.network_dim" in text_of(app)
        assert "4 → 8" in " ".join(text_of(app).split())
        await pilot.press("t")
        await pilot.pause()
        assert "-   network_dim: 4" in text_of(app)
        await pilot.press("t")
        await pilot.pause()
        assert details.shown.id == "facts-scroll"
        assert "python -m snakemake results/lora.safetensors" in text_of(app)


async def test_a_run_without_a_readable_config_is_no_mistake(tmp_path: Path) -> None:
    app = dashboard(tmp_path, run=history(tmp_path), at="runs")
    told: list[Message] = []
    async with app.run_test(size=(80, 24), message_hook=told.append) as pilot:
        await settle(pilot)
        await pilot.press("down", "l")
        await settle(pilot)
        paths = [message.path for message in told if isinstance(message, OpenLog)]
        assert paths[0] == run_row(number=1, root=tmp_path).folder.output
        assert not app._notifications
        await pilot.press("8", "t")
        await settle(pilot)
        assert "cannot be read (No such file or directory): /" in text_of(app)
        assert "the same" not in text_of(app), "nothing was compared"


async def test_the_first_run_is_not_compared_with_one_before(tmp_path: Path) -> None:
    row = run_row(RunState.FINISHED, root=tmp_path)
    app = dashboard(tmp_path, run=RunView(row, (row,)), at="runs")
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert "the first run of this project" in text_of(app)


@pytest.mark.slow
async def test_space_takes_a_runs_curves_to_the_charts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view = history(tmp_path)
    kept = view.rows[1].folder.path / "metrics" / "train.jsonl"
    kept.parent.mkdir(parents=True)
    kept.write_text("")
    app = dashboard(tmp_path, run=view, at="runs")
    told: list[str] = []
    monkeypatch.setattr(app, "notify", lambda message, **how: told.append(message))
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await pilot.press("down", "space")
        await settle(pilot)
        assert [path for _, path in app.files.overlaid] == [kept]
        assert app.screen.query_one(RunsTable).taken == {view.rows[1].id: "1"}
        taken, other = app.files.overlaid[0], ("train", tmp_path / "results/train/metrics.jsonl")
        app.files.overlaid = ()  # as Charts does it
        await pilot.press("3", "8")
        await settle(pilot)
        assert app.screen.query_one(RunsTable).taken == {}
        app.files.overlaid = (other,)
        await pilot.press("space")
        await settle(pilot)
        assert app.files.overlaid == (other, taken)
        assert app.screen.query_one(RunsTable).taken == {view.rows[1].id: "2"}
        await pilot.press("down", "space")
        await settle(pilot)
        assert "this run kept no curves" in told[-1]
        await pilot.press("up", "space")
        await settle(pilot)
        assert app.files.overlaid == (other,)


async def test_processes_of_dead_runs_are_listed_and_ended_only_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[Any] = []
    monkeypatch.setattr(control, "end_orphans", lambda root, now=False: orders.append((root, now)))
    row = run_row(RunState.DIED, root=tmp_path)
    view = RunView(row, (row,), (Orphan(4711, "hv15 train [x]", 2**30, 0.0),))
    app = dashboard(tmp_path, run=view, at="runs")
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert "pid 4711 of a dead run still works (1.0 GiB): hv15 train [x]" in text_of(app)
        await pilot.press("x", "escape")
        await settle(pilot)
        assert not orders
        await pilot.press("x", "k")
        await settle(pilot)
    assert orders == [(tmp_path, True)]


async def test_a_hundred_runs_and_the_cursor_on_the_last(tmp_path: Path) -> None:
    app = dashboard(tmp_path, run=history(tmp_path, 100), at="runs")
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("end")
        await settle(pilot)
        table = app.screen.query_one(RunsTable)
        assert table.cursor == 99
        newer = history(tmp_path, 101)
        await settle(pilot, run=RunView(newer.rows[0], newer.rows))
        assert table.current is not None
        assert table.current.id == run_row(number=99, root=tmp_path).id, "the cursor stays on its run"
