"""Frame times, stalls, idle CPU and memory of the dashboard:  python bench/bench_dashboard.py [--small] [--idle S]

The project has 1,000,000 steps of metrics, a log of 1 GiB, 10,000 jobs and 100 runs; the terminal has 120x40 cells.
One process, headless: all is drawn, nothing is sent to a terminal. Columns: `key` is the median CPU time of the UI
thread from a key to the frame that answers it; `stall` the longest time in which the UI answered nothing (wall clock,
so other programs on the machine are in it) and `of it CPU` the UI thread's own part; `idle` the process's CPU time
while nobody touches anything.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.tui.heavy import HeavyProject, Sizes
from tests.tui.recorded import dashboard, one_gpu

SCREENS = ("run", "config", "charts", "samples", "dataset", "logs", "system", "runs")
SMALL = Sizes(steps=20_000, log_bytes=1 << 24, jobs=1000, runs=10, captions=50)
MIB = 2**20


class Stalls:
    """Wakes every few milliseconds and remembers how late it was at worst."""

    def __init__(self) -> None:
        self.worst = self.worst_cpu = 0.0

    async def watch(self) -> None:
        while True:
            before, cpu = time.perf_counter(), time.thread_time()
            await asyncio.sleep(0.005)
            late, used = time.perf_counter() - before - 0.005, time.thread_time() - cpu
            if late > self.worst:
                self.worst, self.worst_cpu = late, used

    def take(self) -> tuple[float, float]:
        found = self.worst, self.worst_cpu
        self.worst = self.worst_cpu = 0.0
        return found


async def measure(root: Path, idle_s: float) -> None:
    app, process = dashboard(root, one_gpu()), psutil.Process()
    async with app.run_test(size=(120, 40)) as pilot:
        stalls = Stalls()
        watcher = asyncio.create_task(stalls.watch())
        began = time.perf_counter()
        await pilot.pause(8)  # the metrics and the log are read in the background
        print(f"{'screen':<9} {'key ms':>7} {'stall ms':>9} {'of it CPU':>10} {'idle %':>7} {'RSS MiB':>8}")
        for number, name in enumerate(SCREENS, start=1):
            await pilot.press(str(number))
            await pilot.pause(2)
            keys = []
            for key in ("down", "down", "pagedown", "up", "end", "home"):
                cpu = time.thread_time()
                await pilot.press(key)
                await pilot.pause()
                keys.append(time.thread_time() - cpu)
            stall, stall_cpu = stalls.take()
            cpu, wall = time.process_time(), time.perf_counter()
            watcher.cancel()
            await pilot.pause(idle_s)
            idle = (time.process_time() - cpu) / (time.perf_counter() - wall)
            watcher = asyncio.create_task(stalls.watch())
            stalls.take()
            row = f"{name:<9} {statistics.median(keys) * 1e3:7.1f} {stall * 1e3:9.0f} {stall_cpu * 1e3:10.0f}"
            print(f"{row} {idle * 100:7.1f} {process.memory_info().rss / MIB:8.0f}", flush=True)
        watcher.cancel()
        print(f"in all {time.perf_counter() - began:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="a quick look")
    parser.add_argument("--idle", type=float, default=10.0, help="seconds without a key on each screen (10)")
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
