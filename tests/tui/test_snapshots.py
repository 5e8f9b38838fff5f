"""How the ten screens look at 80x24 and 120x40, in the middle of the recorded run, with clock and machine frozen.

After a wanted change:  pytest -n 0 tests/tui/test_snapshots.py --snapshot-update   and look at the pictures.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_textual_snapshot import SVGImageExtension, normalize_svg
from syrupy.assertion import SnapshotAssertion
from textual.pilot import Pilot

from hv15.data.encode import read_video_metadata, write_video
from hv15.queue.queue_file import VARIABLE, QueueFile
from hv15.records.queue import QueuedState
from tests.queue.made_up import keep, project, queue
from tests.tui.idle import at_work
from tests.tui.recorded import GIB, dashboard, one_gpu, replay_at, show
from tui.app import Dashboard
from tui.data.estimate import Estimate, EstimateLine
from tui.data.rerun import DueStage, Rerun
from tui.data.samples import load_clip
from tui.data.system import Process, SystemReader, SystemSample
from tui.widgets import findings
from tui.widgets.jobs_table import JobsTable
from tui.widgets.log_list import LogList
from tui.widgets.navigation import SCREENS, digit
from tui.widgets.projects_table import ProjectsTable
from tui.widgets.runs_table import RunsTable

NOW = 1_800_000_000.0
SHARE = 0.6
PLAN = Rerun((DueStage("train", "Training the LoRA", ("learning_rate changed",)),))
ESTIMATE = Estimate((EstimateLine("train", 17 * GIB, 5400.0), EstimateLine("encode_texts", 9 * GIB, 60.0)))


QUEUE = queue(
    project(1, "/data/cats", QueuedState.DONE, ended=NOW - 7200),
    project(
        2,
        "/data/dogs",
        QueuedState.FAILED,
        reason="Training the LoRA: the GPU ran out of memory",
        cure="train.blocks_to_swap: 20",
        ended=NOW - 3600,
    ),
    project(3, "/data/birds", added=NOW - 9000, targets=("experiments",)),
    project(4, "/data/a-project-with-a-long-name", added=NOW - 8000),
)


def frozen() -> float:
    """The time."""
    return NOW


class Answer:
    """What a dry run or an estimate would say."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def run(self) -> Any:
        return self.answer

    def cancel(self) -> None:
        """Nothing to end."""


def measured(reader: SystemReader, record: object = None, phase: str = "") -> SystemSample:
    """A machine that never changes."""
    [gpu] = one_gpu().read()
    processes = (Process(4001, "hv15 train", 3 * GIB, 97.0), Process(4000, "snakemake", GIB // 8, 1.0))
    reader.peaks["train"] = 18 * GIB
    return SystemSample(NOW, 42.0, 16, 30 * GIB, 128 * GIB, 3 * GIB, processes, 300 * GIB, 2000 * GIB, (gpu,), "")


def remembered(reader: SystemReader, name: str) -> tuple[list[float], list[float]]:
    """Ten minutes of it."""
    high = {"gpu0_used": 17.0 * GIB, "gpu0_utilisation": 98.0, "memory": 30.0 * GIB}.get(name, 42.0)
    return [NOW - 600 + 2 * step for step in range(301)], [high * (0.4 + 0.6 * (step > 100)) for step in range(301)]


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dashboard]:
    """The dashboard at a moment at which the training is over and samples are being made."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr(time, "time", frozen)
    for widget in (
        JobsTable,
        LogList,
        ProjectsTable,
        RunsTable,
    ):  # their clock is a default, which was taken when they were defined
        monkeypatch.setitem(widget.__init__.__kwdefaults__, "clock", frozen)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "state"))
    keep(QueueFile(tmp_path / "state"), QUEUE)
    monkeypatch.setattr(SystemReader, "refresh", measured)
    monkeypatch.setattr(SystemReader, "ring", remembered)
    monkeypatch.setattr(findings, "ASKING_S", 0.01)
    with replay_at(tmp_path / "demo", SHARE, clock=frozen) as replay:
        red = load_clip(replay.root / "demo/clips/red_circle_on_black.mp4", 64, 64).frames
        for sample in (replay.root / "results/samples").glob("*.mp4"):
            # flat colours: the noise of a tiny model is other noise after each change of a decoder
            write_video(sample, red, metadata=read_video_metadata(sample))
        for log in replay.root.rglob("*.log"):  # which is the newest is no matter of speed
            os.utime(log, (NOW, NOW))
        app = dashboard(replay.root, one_gpu(), clock=frozen)
        monkeypatch.setattr(app.files, "dry_run", lambda *_, **__: Answer(PLAN))
        monkeypatch.setattr(app.files, "estimation", lambda *_, **__: Answer(ESTIMATE))
        yield app
    monkeypatch.undo()
    time.tzset()


async def at_rest(app: Dashboard, pilot: Pilot[None]) -> str:
    """The picture, when nothing in it changes any more."""
    before, same = None, 0
    for _ in range(500):
        await pilot.pause()
        cells = [[(part.text, str(part.style)) for part in strip] for strip in app.screen._compositor.render_strips()]
        busy = [each for each in app.workers if each.is_running and each.group != "watch"]  # a log is watched for ever
        same = same + 1 if cells == before and not busy and not at_work() else 0
        if same == 5:
            return normalize_svg(app.export_screenshot(title="hv15"))
        changed = [pair for pair in zip(before or [], cells, strict=False) if pair[0] != pair[1]]
        before = cells
        await asyncio.sleep(0.03)
    raise AssertionError(f"the screen does not come to rest: {changed}")


@pytest.mark.parametrize("size", [pytest.param((80, 24), marks=pytest.mark.slow), (120, 40)], ids=["80x24", "120x40"])
def test_screens(recorded: Dashboard, size: tuple[int, int], snapshot: SnapshotAssertion) -> None:
    pictures = {}

    async def run() -> None:
        async with recorded.run_test(size=size) as pilot:
            # The first are seen a second time: a curve that was asked for before the first layout has other points, and
            # the jobs may have been read only afterwards
            for name in SCREENS + SCREENS[:3]:
                await show(pilot, recorded, str(digit(name)), name)
                pictures[name] = await at_rest(recorded, pilot)

    asyncio.run(run())
    kept = snapshot.use_extension(SVGImageExtension)
    assert [name for name in SCREENS if pictures[name] != kept(name=name)] == []
