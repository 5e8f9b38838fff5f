"""Frame times, stalls, idle CPU and memory of the dashboard:  python bench/bench_dashboard.py [--small] [--idle S]

The project has 1,000,000 steps of metrics, a log of 1 GiB, 10,000 jobs and 100 runs; the terminal has 120x40 cells.
One process, headless: all is drawn, nothing is sent to a terminal. `open` and `keys` are the longest time that the UI
thread computed without answering anything, in CPU time: when the screen is shown first, and for six keys on it. `wall`
is the same by the clock, so other programs on the machine are in it. `idle` is the CPU time of the whole process while
nobody touches anything, when the metrics and the log are read; in a minute there is one search for garbage, of some
200 ms, which weighs more in shorter times.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.tui.heavy import HeavyProject, Sizes
from tests.tui.recorded import dashboard, one_gpu
from tui.widgets.log_view import LogView

SCREENS = ("run", "config", "charts", "samples", "dataset", "logs", "system", "runs")
SMALL = Sizes(steps=20_000, log_bytes=1 << 24, jobs=1000, runs=10, captions=50)
MIB = 2**20
KEYS = ("down", "down", "pagedown", "up", "end", "home")


class Stalls:
    """Wakes every few milliseconds and remembers how long it was kept from it at worst."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    async def watch(self) -> None:
        while True:
            wall, cpu = time.perf_counter(), time.thread_time()
            await asyncio.sleep(0.005)
            self.wall = max(self.wall, time.perf_counter() - wall - 0.005)
            self.cpu = max(self.cpu, time.thread_time() - cpu)

    def take(self) -> tuple[float, float]:
        """Return the worst since the last call in milliseconds: by the clock, and of computing."""
        found = self.wall * 1e3, self.cpu * 1e3
        self.wall = self.cpu = 0.0
        return found


async def measure(root: Path, idle_s: float) -> None:
    app, process = dashboard(root, one_gpu()), psutil.Process()
    async with app.run_test(size=(120, 40)) as pilot:
        stalls = Stalls()
        began = time.perf_counter()
        metrics = app.watcher.sources["metrics"]
        while metrics.value is None or not metrics.value.complete:  # it is read in the background
            await pilot.pause(1)
        print(f"metrics read after {time.perf_counter() - began:.0f} s")
        print(f"{'screen':<9} {'open ms':>8} {'keys ms':>8} {'wall ms':>8} {'idle %':>7} {'RSS MiB':>8}")
        for number, name in enumerate(SCREENS, start=1):
            watcher = asyncio.create_task(stalls.watch())
            await pilot.press(str(number))
            await pilot.pause(2)
            wall, opened = stalls.take()
            for key in KEYS:
                await pilot.press(key)
            wall_keys, keys = stalls.take()
            watcher.cancel()
            if name == "logs":
                began_log = time.perf_counter()
                while (state := app.screen.query_one(LogView)._log_state) is None or not state.complete:
                    await pilot.pause(0.1)
                log_s = time.perf_counter() - began_log
            cpu, clock = time.process_time(), time.perf_counter()
            await asyncio.sleep(idle_s)
            idle = (time.process_time() - cpu) / (time.perf_counter() - clock)
            row = f"{name:<9} {opened:8.0f} {keys:8.0f} {max(wall, wall_keys):8.0f} {idle * 100:7.1f}"
            print(f"{row} {process.memory_info().rss / MIB:8.0f}", flush=True)
        print(f"the log was complete after {log_s:.0f} s more; in all {time.perf_counter() - began:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="a quick look")
    parser.add_argument("--idle", type=float, default=60.0, help="seconds without a key on each screen (60)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print("writing the project", flush=True)
        project = HeavyProject(Path(folder) / "project", SMALL if options.small else Sizes())
        sizes = project.metrics.stat().st_size / MIB, project.log.stat().st_size / MIB
        print(
            f"metrics {sizes[0]:.0f} MiB, log {sizes[1]:.0f} MiB, {project.sizes.jobs} jobs, {project.sizes.runs} runs"
        )
        asyncio.run(measure(project.root, options.idle))
        project.close()


if __name__ == "__main__":
    main()
