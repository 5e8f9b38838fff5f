"""GPUs, their memory over time, and who takes it; on a machine without GPU the processor, and it is said."""

from __future__ import annotations

import asyncio
from pathlib import Path

from textual.app import ComposeResult

from hv15.units import size
from tests.tui.recorded import GIB, Themed, dashboard, one_gpu, replay_at, show, until
from tui.data.system import Gpu, GpuProcess, Process, SystemSample
from tui.screens.system import machine_text, phase_text
from tui.widgets.history import History
from tui.widgets.machine_panel import MachinePanel
from tui.widgets.process_table import ProcessTable, process_rows


def sample(*gpus: Gpu, processes: tuple[Process, ...] = ()) -> SystemSample:
    return SystemSample(
        time=0.0,
        cpu=50.0,
        cpus=8,
        memory_used=8 * GIB,
        memory_total=32 * GIB,
        rss=2 * GIB,
        processes=processes,
        disk_free=100 * GIB,
        disk_total=400 * GIB,
        gpus=gpus,
        note="" if gpus else "no GPU here",
    )


class Graph(Themed):
    def compose(self) -> ComposeResult:
        yield History(size)


def rows(history: History) -> list[str]:
    return [history.render_line(y).text for y in range(history.size.height)]


def test_memory_is_drawn_under_its_limit_with_the_peak_marked() -> None:
    async def run() -> None:
        app = Graph()
        async with app.run_test(size=(49, 9)) as pilot:
            history = app.query_one(History)
            times = [float(second) for second in range(120)]
            history.show(times, [12 * GIB] * 59 + [3 * GIB] * 61, limit=24 * GIB, peak=21 * GIB)
            await pilot.pause()
            drawn = rows(history)
            assert [line[:9].strip() for line in drawn[:2]] == ["24 GiB", "peak"]
            assert set(drawn[1][9:]) == {"╌"}  # 21 of 24 GiB: the second of eight rows
            assert drawn[4][9:] == "█" * 20 + " " * 20  # half of the limit, in the older half of the time
            assert drawn[7][9:] == "█" * 40  # 3 of 24 GiB: exactly the lowest row
            assert drawn[8].split() == ["2:00", "ago", "now"]

    asyncio.run(run())


def test_a_gap_in_the_measurements_stays_a_gap() -> None:
    async def run() -> None:
        app = Graph()
        async with app.run_test(size=(49, 9)):
            history = app.query_one(History)
            history.show([0.0, 105.0, 120.0], [5.0, 5.0, 5.0], limit=10.0)
            assert [value is None for value in history.columns(12)] == [False] + [True] * 9 + [False] * 2

    asyncio.run(run())


def test_other_programs_on_the_gpu_stand_below_the_run_and_are_marked() -> None:
    gpu = Gpu(0, "gpu", 20 * GIB, 24 * GIB, processes=(GpuProcess(7, GIB), GpuProcess(1, 18 * GIB, of_this_run=True)))
    found = process_rows(
        sample(gpu, processes=(Process(1, "hv15 train", GIB, 90.0), Process(2, "snakemake", GIB, 1.0)))
    )
    assert [(row.pid, row.gpu, row.of_this_run) for row in found] == [
        (1, 18 * GIB, True),
        (2, 0, True),
        (7, GIB, False),
    ]
    assert "! " in ProcessTable().draw(found[2], 60).plain


def test_a_machine_without_gpu_says_so(tmp_path: Path) -> None:
    assert "100 GiB free of 400 GiB" in machine_text(sample()).plain
    assert "8.0 GiB of 32 GiB" in machine_text(sample(Gpu(0, "gpu", 0, GIB))).plain
    assert "nothing measured" in phase_text({}).plain
    assert [line.split()[0] for line in phase_text({"encode_texts": GIB, "train": 2 * GIB}).plain.splitlines()] == [
        "train",
        "encode_texts",
    ]


def test_the_screen_with_and_without_a_gpu(tmp_path: Path) -> None:
    async def run(root: Path, gpu: bool) -> tuple[str, str]:
        app = dashboard(root, one_gpu() if gpu else None, at="system")
        async with app.run_test(size=(120, 40)) as pilot:
            screen = await show(pilot, app, "7", "system")
            history = screen.query_one("#history", History)
            await until(pilot, lambda: history.values)
            await pilot.press("v")
            await until(pilot, lambda: bool(screen.query_one(ProcessTable).rows) or not gpu)
            return str(history.border_title), screen.query_one(MachinePanel).render().plain

    with replay_at(tmp_path / "demo", 0.5) as replay:
        title, device = asyncio.run(run(replay.root, gpu=True))
        assert title == "VRAM of GPU0 (GPU of the test)"
        assert "17 GiB of 24 GiB" in device
        title, device = asyncio.run(run(replay.root, gpu=False))
        assert title == "Memory of the machine"
        assert "no GPU here" in device
