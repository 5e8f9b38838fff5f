"""Too much, too long, broken and hostile: the dashboard shows it or says why not, and continues.

Times and the full sizes are measured by bench/bench_dashboard.py; here nothing depends on the speed of the machine.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.pilot import Pilot

from tests.tui.heavy import HeavyProject, Sizes
from tests.tui.recorded import dashboard, one_gpu, show, until
from tui.app import Dashboard
from tui.screens.logs import LogsScreen
from tui.widgets.clip_list import ClipList
from tui.widgets.log_view import LogView
from tui.widgets.navigation import SCREENS, digit

SIZES = Sizes(steps=20_000, log_bytes=1 << 23, jobs=10_000, runs=100, captions=60)
MEMORY = 300 << 20
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def heavy(tmp_path: Path) -> Iterator[HeavyProject]:
    project = HeavyProject(tmp_path / "project", SIZES)
    yield project
    project.close()


async def read_anew(app: Dashboard, pilot: Pilot[None]) -> None:
    """Have all files that the screen shows read again, and what they say be shown."""
    app.watcher.refresh()
    for worker in [each for each in app.workers if each.group.startswith("source-")]:
        await worker.wait()
    await pilot.pause()


@pytest.mark.slow
def test_every_screen_bears_it_while_files_break_and_the_terminal_changes(heavy: HeavyProject) -> None:
    async def run() -> None:
        app = dashboard(heavy.root, one_gpu())
        async with app.run_test(size=(120, 40)) as pilot:
            for name in SCREENS:
                screen = await show(pilot, app, str(digit(name)), name)
                await pilot.press("down", "end", "home")
                if name == "dataset":
                    clips = screen.query_one(ClipList)
                    await until(pilot, lambda: len(clips.rows) == SIZES.captions)  # noqa: B023
                    by_name = {row.path.stem: row for row in clips.rows}
                    assert "not markup" in by_name["clip00001"].caption
                    assert "not UTF-8" in by_name["clip00000"].problem
                    screen_text = "".join(strip.text for strip in screen._compositor.render_strips())
                    assert "\x1b" not in screen_text
                if name == "logs":
                    await bear_a_log(pilot, app, heavy)

            for size in ((30, 8), (200, 55), (80, 24)):
                await pilot.resize_terminal(*size)
                await pilot.pause()

            # the run dies; its files are cut, taken away, replaced by folders
            heavy.close()
            heavy.metrics.write_bytes(b'{"kind": "step"\n\xff\xfe{]\n')
            heavy.run.events.write_bytes(b"\x00\xff not json\n")
            (heavy.root / "config.yaml").write_bytes(b"\xff\xfe: [")
            heavy.log.unlink()
            heavy.log.mkdir()
            for name in SCREENS:
                await show(pilot, app, str(digit(name)), name)
                await read_anew(app, pilot)
            assert app.is_running
            assert app._exception is None

    async def bear_a_log(pilot, app, heavy: HeavyProject) -> None:  # type: ignore[no-untyped-def]
        screen = app.screen
        assert isinstance(screen, LogsScreen)
        screen.open_log(heavy.log)
        view = screen.query_one(LogView)
        await until(pilot, lambda: view._log_state.complete and view._log_state.lines)
        assert view._log_state.lines > 10_000
        view.action_first()
        await until(pilot, lambda: "step 0:" in view.render_line(0).text)
        text = [view.render_line(y).text for y in range(5)]
        assert not any("\x1b" in line for line in text)

    asyncio.run(run())


@pytest.mark.slow
def test_clocks_that_jump_do_not_matter(heavy: HeavyProject) -> None:
    times = iter([1e9, 2e9, 5e8, 1.8e9] * 1000)

    async def run() -> None:
        app = dashboard(heavy.root, one_gpu(), clock=lambda: next(times))
        async with app.run_test(size=(120, 40)) as pilot:
            for number, name in ((1, "run"), (7, "system"), (8, "runs")):
                await show(pilot, app, str(number), name)
                await read_anew(app, pilot)
            assert app._exception is None

    asyncio.run(run())


PROBE = """
import asyncio, sys
from pathlib import Path
import psutil
from tests.tui.recorded import dashboard, one_gpu
from tui.widgets.navigation import SCREENS, digit

async def run():
    app = dashboard(Path(sys.argv[1]), one_gpu())
    async with app.run_test(size=(120, 40)) as pilot:
        for name in SCREENS:
            await pilot.press(str(digit(name)))
            await pilot.pause(0.2)
        await pilot.pause(1)
        print(psutil.Process().memory_info().rss, *(name for name in ("torch", "transformers") if name in sys.modules))

asyncio.run(run())
"""


@pytest.mark.slow
def test_memory_stays_small_and_no_torch_is_loaded(heavy: HeavyProject) -> None:
    """In a process of its own: that of the tests holds much else."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(heavy.root)], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    rss, *loaded = done.stdout.split()
    assert loaded == []
    assert int(rss) < MEMORY
