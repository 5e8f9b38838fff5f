"""The screen Run: what it shows of a run, and that its keys start, stop and kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.message import Message

from hv15.errors import UserError
from hv15.records.checks import Check
from hv15.runs import control
from hv15.runs.state import RunState
from tests.tui.watched import (
    GIB,
    card,
    dashboard,
    gpu,
    job,
    jobs_view,
    machine,
    metrics_view,
    of_type,
    planned,
    run_row,
    run_view,
    settle,
    text_of,
)
from tui.app import Dashboard
from tui.data.history import Orphan
from tui.data.jobs import JobState
from tui.data.rerun import DueStage, Rerun
from tui.dialogs.confirm import Confirm
from tui.dialogs.start import StartDialog
from tui.messages import JobsSeen, OpenLog, RunSeen
from tui.project_files import RunView, TailView
from tui.widgets.chart import Chart
from tui.widgets.failure_panel import FailurePanel
from tui.widgets.jobs_table import JobsTable
from tui.widgets.plan_view import PlanView
from tui.widgets.rows import Rows


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was asked of `hv15.runs.control`."""
    given: list[tuple[Any, ...]] = []
    monkeypatch.setattr(control, "stop", lambda root, now=False: given.append(("kill" if now else "stop", root)))
    monkeypatch.setattr(control, "unlock", lambda project: given.append(("unlock", project)) or True)
    return given


def started(app: Dashboard) -> list[list[str]]:
    """The targets of the runs that were started."""
    return app.files.started  # type: ignore[attr-defined,no-any-return]


async def test_a_run_from_its_start_to_its_end(tmp_path: Path) -> None:
    """Also: the messages come in the order in which the files tell, and nothing else is needed to follow a run."""
    app = dashboard(tmp_path)
    seen: list[Message] = []
    async with app.run_test(size=(120, 40), message_hook=seen.append) as pilot:
        await settle(pilot)
        assert "s shows what would run" in text_of(app)
        jobs = [job(1, JobState.RUNNING, "train", log=("results/logs/train.log",)), job(2), job(3, JobState.DONE)]
        await settle(pilot, run=run_view(RunState.RUNNING, root=tmp_path), jobs=jobs_view(*jobs))
        shown = text_of(app)
        assert "▶ train the LoRA" in shown
        assert "waiting" in shown
        assert "1/3 · 1 running · ETA 2:05" in shown
        assert app.files.tail_of == tmp_path / "results/logs/train.log", "the log of what runs is followed"
        lines = ("step 1 [red]loss[/] 0.5", "step 2")
        await settle(pilot, tail=TailView(app.files.tail_of, lines), machine=machine(gpu()))
        shown = text_of(app)
        assert "step 1 [red]loss[/] 0.5" in shown, "logs are no markup"
        assert "71 GiB of 80 GiB" in shown
        done = [job(number, JobState.DONE) for number in (1, 2, 3)]
        await settle(pilot, run=run_view(RunState.FINISHED, root=tmp_path), jobs=jobs_view(*done, ended=True))
        assert "✓ finished" in text_of(app).splitlines()[0]
        assert "3/3" in text_of(app)
    assert of_type(seen, RunSeen, JobsSeen) == ["RunSeen", "JobsSeen", "RunSeen", "JobsSeen"]


async def test_a_run_that_dies_is_seen_as_dead_with_its_reason(tmp_path: Path) -> None:
    app = dashboard(tmp_path, run=run_view(), jobs=jobs_view(job(1, JobState.RUNNING)))
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        reason = "it was killed from outside (kill -9, or the machine ran out of memory)"
        row = run_row(RunState.DIED, reason=reason)
        left = Orphan(4711, "hv15 train", 5 * GIB, 0.0)
        await settle(pilot, run=RunView(row, (row,), (left,), locked=True), jobs=jobs_view(job(1, JobState.CUT)))
        shown = text_of(app)
        assert "† died" in shown.splitlines()[0]
        assert reason in shown
        assert "pid 4711 of a dead run still works here" in shown
        assert "lock behind" in shown
        assert "■ encode clips 1" in shown
        assert "cut short" in shown


async def test_a_failure_says_cause_cure_and_the_end_of_its_log(tmp_path: Path) -> None:
    cards = (card(), card("the disk is full", ("No space left",)))
    app = dashboard(tmp_path, run=run_view(RunState.FAILED), jobs=jobs_view(job(1, JobState.FAILED), failures=cards))
    asked: list[Message] = []
    async with app.run_test(size=(120, 40), message_hook=asked.append) as pilot:
        await settle(pilot)
        shown = text_of(app)
        assert "the GPU ran out of memory" in shown
        assert "what to do: train.blocks_to_swap: 20" in shown
        assert "CUDA [bold]oom[/]" in shown
        assert "(1 of 2)" in shown
        app.screen.query_one(FailurePanel).focus()
        await pilot.press("right")
        await pilot.pause()
        assert "the disk is full" in text_of(app)
        await pilot.press("enter")
        await pilot.pause()
        assert next(message.path for message in asked if isinstance(message, OpenLog)) == Path("/project/train.log")
        assert app.current_mode == "logs"


async def test_start_shows_what_would_run_before_it_starts(tmp_path: Path) -> None:
    app = dashboard(tmp_path)
    app.files.plan = Rerun((planned(1, "train", "learning_rate changed"),))  # type: ignore[attr-defined]
    app.files.checks = (
        Check("note", "GPU", "busy"),
        Check("ok", "dataset", "12 clips"),
        Check("problem", "clip 3 [b]", "too short"),
    )  # type: ignore[attr-defined]
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await pilot.press("s")
        await settle(pilot)
        assert isinstance(app.screen, StartDialog)
        assert text_of(app).index("✗ clip 3 [b]: too short") < text_of(app).index("! GPU: busy")
        assert "12 clips" not in text_of(app)
        assert "learning_rate changed" in text_of(app)
        assert not started(app), "looking starts nothing"
        await pilot.press("s")
        await settle(pilot)
    assert started(app) == [[]], "everything"


async def test_another_target_is_asked_for_and_started(tmp_path: Path) -> None:
    app = dashboard(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await pilot.press("s")
        await settle(pilot)
        field = app.screen.query_one("#start-target")
        field.focus()
        field.value = "results/samples/a.mp4 'b c.mp4'"  # type: ignore[attr-defined]
        await pilot.press("enter")
        await settle(pilot)
        assert app.files.asked[-1] == (None, ("results/samples/a.mp4", "b c.mp4"))  # type: ignore[attr-defined]
        await pilot.press("ctrl+s")
        await settle(pilot)
    assert started(app) == [["results/samples/a.mp4", "b c.mp4"]]


async def test_a_dry_run_starts_nothing(tmp_path: Path) -> None:
    app = dashboard(tmp_path)
    app.files.plan = Rerun(error="config.yaml:4:3 train.x: unknown key")  # type: ignore[attr-defined]
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await pilot.press("d")
        await settle(pilot)
        assert "config.yaml:4:3 train.x: unknown key" in text_of(app)
        await pilot.press("s", "escape")
        await settle(pilot)
    assert not started(app)


@pytest.mark.slow
async def test_what_cannot_start_offers_no_start(tmp_path: Path) -> None:
    app = dashboard(tmp_path)
    words = [f"config.yaml:{line}:3 train.x{line}: unknown key" for line in range(1, 13)]
    app.files.plan = Rerun(error="\n".join(words))  # type: ignore[attr-defined]
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await pilot.press("s")
        await settle(pilot)
        assert "it cannot start" in text_of(app)
        assert words[-1] in text_of(app), "there is room for all of it"
        assert "Start (s)" not in text_of(app)
        await pilot.press("s", "ctrl+s")
        await settle(pilot)
        assert isinstance(app.screen, StartDialog)
        # asked again, it can start
        app.files.plan = Rerun((planned(1, "train", "learning_rate changed"),))  # type: ignore[attr-defined]
        await pilot.press("d")
        await settle(pilot)
        assert "Start (s)" in text_of(app)
        assert not started(app)
        await pilot.press("s")
        await settle(pilot)
    assert len(started(app)) == 1


@pytest.mark.parametrize("size", [(80, 24), pytest.param((200, 55), marks=pytest.mark.slow)])
async def test_the_start_dialog_uses_the_room_it_has(tmp_path: Path, size: tuple[int, int]) -> None:
    app = dashboard(tmp_path)
    app.files.plan = Rerun(tuple(planned(number, "encode", "because " * 9 + "of it") for number in range(1, 60)))  # type: ignore[attr-defined]
    app.files.checks = tuple(Check("note", f"clip {number}", "short") for number in range(9))  # type: ignore[attr-defined]
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        await pilot.press("s")
        await settle(pilot)
        box, table = app.screen.query_one(".dialog"), app.screen.query_one("#plan")
        assert box.region.width >= min(0.9 * size[0], 150)
        assert box.region.height >= 0.85 * size[1]
        assert table.region.height >= 0.2 * size[1]
        assert table.region.bottom < app.screen.query_one("#start").region.y < box.region.bottom
        if size[1] > 50:
            assert "clip 8: short" in text_of(app)
            assert "because of it" in text_of(app)


LONG = (
    "train.learning_rate 0.0001 -> 0.0002",
    "the training of 1,600 steps is kept in train-ab12cd34; to continue from it instead set train.continue_from: "
    "latest, train.reset_optimizer: true and a greater train.max_train_steps",
)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_long_reasons_stand_whole_below_the_jobs(tmp_path: Path, size: tuple[int, int]) -> None:
    app = dashboard(tmp_path)
    others = [planned(number, "sample_video", "Training the LoRA") for number in range(30)]
    train = DueStage("train", "Training the LoRA", LONG)
    app.files.plan = Rerun((planned(1, "encode_texts", "3 new captions"), train, *others))  # type: ignore[attr-defined]
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        await pilot.press("s")
        await settle(pilot)
        below = [line.partition("▌")[2].partition("│")[0] for line in text_of(app).splitlines() if "▌" in line]
        shown = " ".join(" ".join(below).split())
        assert shown == " ".join(LONG), "the job with the longest reasons is the first to be explained"
        app.screen.query_one(PlanView).table.focus()
        await pilot.press("home")
        await settle(pilot)
        assert "train.continue_from: latest" not in text_of(app)
        assert text_of(app).count("3 new captions") == 2, "in the line, and below"
        app.files.plan = Rerun((planned(1, "encode_texts", "3 new captions"),))  # type: ignore[attr-defined]
        await pilot.press("d")
        await settle(pilot)
        assert text_of(app).count("3 new captions") == 1, "what fits into its line is not said twice"


async def test_stop_asks_first_and_again_kills(tmp_path: Path, orders: list[tuple[Any, ...]]) -> None:
    app = dashboard(tmp_path, run=run_view())
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await pilot.press("x")
        await pilot.pause()
        assert isinstance(app.screen, Confirm)
        await pilot.press("escape")
        await settle(pilot)
        assert not orders
        await pilot.press("x", "x")
        await settle(pilot)
        assert orders == [("stop", tmp_path)]
        await settle(pilot, run=run_view(RunState.STOPPING))
        await pilot.press("x", "x")
        await settle(pilot)
    assert orders == [("stop", tmp_path), ("kill", tmp_path)]


async def test_what_cannot_be_done_is_said_with_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = dashboard(tmp_path)
    app.files.refusal = UserError("a run is already in progress", hint="stop [it] first")  # type: ignore[attr-defined]
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(app, "notify", lambda message, **how: told.append((how.get("title", ""), message)))
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await pilot.press("x")
        await pilot.press("s")
        await settle(pilot)
        await pilot.press("s")
        await settle(pilot)
        assert "s shows what would run" in text_of(app), "nothing is starting"
    assert ("Stop", "nothing runs here") in told
    assert ("That did not work", "a run is already in progress\nstop [it] first") in told


@pytest.mark.slow
async def test_of_ten_thousand_jobs_only_the_seen_ones_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: set[int] = set()
    draw = JobsTable.draw

    def counted(self: JobsTable, row: Any, width: int) -> Any:
        drawn.add(row.id)
        return draw(self, row, width)

    monkeypatch.setattr(JobsTable, "draw", counted)
    jobs = jobs_view(*(job(number) for number in range(10_000)))
    app = dashboard(tmp_path, run=run_view(), jobs=jobs)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert 0 < len(drawn) < 100
        await pilot.press("end")
        await pilot.pause()
        assert app.screen.query_one(JobsTable).current.id == 9999  # type: ignore[union-attr]
        assert "encode clips 9999" in text_of(app)
        assert len(drawn) < 200
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        assert "encode clips 9999" in text_of(app), "the row under the cursor stays in sight"


async def test_the_cursor_stays_on_top_until_it_is_moved_and_then_on_its_job(tmp_path: Path) -> None:
    app = dashboard(tmp_path, run=run_view(), jobs=jobs_view(job(1, JobState.RUNNING), job(2), job(3)))
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        table = app.screen.query_one(JobsTable)
        await settle(pilot, jobs=jobs_view(job(2, JobState.RUNNING), job(3), job(1, JobState.DONE)))
        assert table.current.id == 2  # type: ignore[union-attr]
        await pilot.press("down")
        await settle(pilot, jobs=jobs_view(job(3, JobState.RUNNING), job(1, JobState.DONE), job(2, JobState.DONE)))
        assert table.current.id == 3  # type: ignore[union-attr]
        await settle(pilot, jobs=jobs_view(job(4, JobState.RUNNING), job(1, JobState.DONE), job(3, JobState.DONE)))
        assert table.current.id == 3  # type: ignore[union-attr]
        assert isinstance(table, Rows)


async def test_warnings_stand_above(tmp_path: Path) -> None:
    app = dashboard(
        tmp_path, run=run_view(), metrics=metrics_view(stalled=True, silent_s=600.0), machine=machine(disk_free=0)
    )
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        notice = [line for line in text_of(app).splitlines()[2:8] if line.strip().startswith("!")]
        assert len(notice) == 2, "a stall and a full disk"


async def test_a_dead_run_without_jobs_is_not_said_to_start(tmp_path: Path) -> None:
    app = dashboard(tmp_path, run=run_view(RunState.DIED, root=tmp_path))
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot, jobs=jobs_view())
        assert "the run recorded no jobs" in text_of(app)
        await settle(pilot, run=run_view(RunState.STARTING, root=tmp_path), jobs=jobs_view())
        assert "the run is starting" in text_of(app)


async def test_what_an_earlier_training_measured_is_not_told_as_the_runs_own(tmp_path: Path) -> None:
    view = metrics_view()
    app = dashboard(tmp_path, run=run_view(), metrics=view)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert f"step {view.training.step}" in text_of(app)
        former = replace(view.training, former=True)
        await settle(pilot, metrics=replace(view, version=view.version + 1, training=former))
        assert f"step {view.training.step}" not in text_of(app)
        assert app.screen.query_one("#loss", Chart).note == "of the training before this run"
