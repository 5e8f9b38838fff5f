"""What the dashboard's readers cost at the largest sizes, and how long they keep another thread (the screen) waiting.

    python bench/bench_dashboard_data.py [--scale 1.0] [--only metrics log jobs runs config]

Sizes at scale 1: 1,000,000 steps in metrics.jsonl, a log of 1 GB, 10,000 jobs, 100 runs. `pause` is the longest time
for which a thread that wakes every 2 ms did not run while the readers worked; other work of the machine counts in it.
`CPU` is the median of the processor's time of a call, `worst` the longest by the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from hv15.records.events import (
    JobDetails,
    JobDone,
    JobsCounted,
    JobsPlanned,
    JobStarted,
    RunEnded,
    RunEvent,
    event_line,
)
from hv15.records.metrics import StartRecord, StepRecord, metrics_line

REPEATS = 9


@contextmanager
def pauses() -> Iterator[list[float]]:
    """Collect how long a thread that wakes every 2 ms was kept from it."""
    found: list[float] = []
    over = threading.Event()

    def tick() -> None:
        last = time.perf_counter()
        while not over.is_set():
            time.sleep(0.002)
            now = time.perf_counter()
            found.append(now - last - 0.002)
            last = now

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def row(name: str, times: list[tuple[float, float]], note: str = "") -> None:
    cpu, wall = zip(*times, strict=True)
    print(f"{name:46} {statistics.median(cpu) * 1e3:10.2f} {max(wall) * 1e3:10.2f}   {note}", flush=True)


def timed(action: Callable[[], object], repeats: int = REPEATS) -> list[tuple[float, float]]:
    """Seconds of the processor and of the clock of each call."""
    found = []
    for _ in range(repeats):
        begun, cpu = time.perf_counter(), time.thread_time()
        action()
        found.append((time.thread_time() - cpu, time.perf_counter() - begun))
    return found


def read_all(name: str, refresh: Callable[[], object], complete: Callable[[], bool]) -> None:
    """Read a file to its end in the slices that a worker takes."""
    process = psutil.Process()
    before, cpu = process.memory_info().rss, time.process_time()
    slices: list[tuple[float, float]] = []
    with pauses() as found:
        begun = time.perf_counter()
        while True:
            slices += timed(refresh, 1)
            if complete():
                break
        total = time.perf_counter() - begun
    grown = (process.memory_info().rss - before) / 2**20
    cpu = time.process_time() - cpu
    note = f"{total:.1f} s ({cpu:.1f} s CPU) in all, +{grown:.0f} MiB, pause {max(found) * 1e3:.0f} ms"
    row(name, slices, note)


def metrics(root: Path, scale: float) -> None:
    from tui.data.curves import CHARTS, LOSS
    from tui.data.metrics import MetricsReader

    path, steps = root / "metrics.jsonl", int(1_000_000 * scale)
    chooser = random.Random(0)
    with path.open("w") as file:
        start = StartRecord(step=0, time=1.7e9, total_steps=2 * steps, spec="of the benchmark")
        file.write(json.dumps(metrics_line(start)) + "\n")
        for step in range(1, steps + 1):
            bins: list[float | None] = [None] * 10
            bins[chooser.randrange(10)] = loss = chooser.random() + 1000 / (step + 1000)
            file.write(line(step, loss, bins))
    print(f"metrics.jsonl: {steps:,} steps, {path.stat().st_size / 2**20:.0f} MiB")
    reader = MetricsReader(path)
    read_all("  read (slices of 250 ms)", lambda: reader.refresh(), lambda: reader.complete)
    row("  refresh, nothing new", timed(reader.refresh))

    def one_more() -> None:
        with path.open("a") as file:
            file.write(line(reader.rows + 1, 0.5, [0.5] + [None] * 9))
        reader.refresh()

    row("  refresh, one new step", timed(one_more))
    with pauses() as found:
        loss = LOSS.curves[0]
        sigma = next(curve for chart in CHARTS for curve in chart.curves if curve.bin == 3)
        row("  loss in 200 columns", timed(lambda: reader.series(loss, columns=200)))
        row("  smoothed loss in 200 columns", timed(lambda: reader.series(LOSS.main, columns=200)))
        row("  a sigma bin in 200 columns", timed(lambda: reader.series(sigma, columns=200)))
        row("  the last 1000 steps of the loss", timed(lambda: reader.series(loss, columns=200, start=steps - 1000)))
        row("  how far the training is", timed(reader.status))
    print(f"  pause while drawing: {max(found) * 1e3:.0f} ms")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2].rsplit(b"\n", 1)[0] + b"\n")
    row("  cut to a half by a resumed training", timed(reader.refresh, 1), f"{reader.rows:,} steps left")


def line(step: int, loss: float, bins: list[float | None]) -> str:
    record = StepRecord(
        step=step,
        time=1.7e9 + step,
        epoch=step / 100,
        loss=loss,
        loss_by_sigma=tuple(bins),
        lr=1e-4,
        grad_norm=0.3,
        samples_per_s=0.5,
        data_wait_s=0.001,
        step_s=2.0123,
        tokens_per_s=12345.6,
        memory=20 << 30,
        memory_peak=21 << 30,
    )
    return json.dumps(metrics_line(record)) + "\n"


def log(root: Path, scale: float) -> None:
    from tui.data.log_file import LogFile, LogFilter, tail

    path = root / "train.log"
    colour = ("\x1b[33m", "\x1b[0m")
    block = "".join(
        f"{colour[0] * (n % 100 == 0)}INFO{colour[1] * (n % 100 == 0)} step {n:6d}  loss 0.{n % 9973:04d}  lr 1e-4\n"
        for n in range(20_000)
    )
    wanted = int((1 << 30) * scale)
    with path.open("w") as file:
        while file.tell() < wanted - 100:
            file.write(block)
        file.write("a last ERROR\n")
    print(f"log: {path.stat().st_size / 2**20:.0f} MiB")
    row("  last 200 lines without an index", timed(lambda: tail(path, 200)))
    opened = LogFile(path)
    read_all("  index (slices of 100 ms)", lambda: opened.refresh(), lambda: opened.complete)
    print(f"  {opened.lines:,} lines")
    chooser = random.Random(0)
    row("  a block of 50 lines anywhere", timed(lambda: opened.block(chooser.randrange(opened.lines), 50), 50))
    row("  refresh, nothing new", timed(opened.refresh))
    with pauses() as found:
        row("  search for what is in the last line", timed(lambda: opened.search("a last error", 0), 1))
    print(f"  pause while searching: {max(found) * 1e3:.0f} ms")
    chosen = LogFilter(opened, "loss 0.0007")
    read_all("  filter (slices of 100 ms)", lambda: chosen.advance(), lambda: chosen.complete)
    row("  a block of 50 filtered lines", timed(lambda: chosen.block(chosen.lines // 2, 50)), f"{chosen.lines:,} lines")
    long = root / "long.log"
    with long.open("wb") as file:
        file.write(b"".join(b"\r%d%%" % (n % 100) for n in range(int(20_000_000 * scale))) + b"\nend\n")
    one = LogFile(long)
    read_all(f"  one line of {long.stat().st_size / 2**20:.0f} MiB", lambda: one.refresh(), lambda: one.complete)
    row("  shown", timed(lambda: one.block(0, 50)))


def jobs(root: Path, scale: float) -> None:
    from tui.data.jobs import JobsReader

    path, count = root / "events.jsonl", int(10_000 * scale)
    each = [
        JobDetails(
            id=n,
            rule=f"rule{n % 7}",
            wildcards={"shard": str(n)},
            reason=f"Missing output files: results/{n}.json; Input files updated by another job: results/{n}.txt",
            message=f"Making {n}",
            log=(f"results/logs/{n}.log",),
            output=(f"results/{n}.json",),
        )
        for n in range(count)
    ]
    with path.open("w") as file:

        def write(event: RunEvent) -> None:
            file.write(json.dumps(event_line(event)) + "\n")

        write(JobsPlanned(time=0, jobs=tuple(each), total=count))
        for n in range(count // 2):
            write(JobStarted(time=n, job=each[n]))
            write(JobDone(time=n + 0.5, id=n))
            write(JobsCounted(time=n + 0.5, done=n + 1, total=count))
        for n in range(1, 9):
            write(JobStarted(time=count, job=each[-n]))
    print(f"events.jsonl: {count:,} jobs, {path.stat().st_size / 2**20:.0f} MiB")
    reader = JobsReader(path, root)
    read_all("  read (slices of 250 ms)", lambda: reader.refresh(), lambda: reader.complete)
    row("  refresh, nothing new", timed(reader.refresh))
    with pauses() as found:
        row("  all jobs in order", timed(reader.ordered))
        row("  counts by rule", timed(reader.by_rule))
        row("  progress with ETA", timed(reader.progress))
    print(f"  pause while showing: {max(found) * 1e3:.0f} ms")


def runs(root: Path, scale: float) -> None:
    from hv15.runs.record import RunFolder, append_event
    from tui.data.history import HistoryReader
    from tui.data.system import SystemReader

    config, count = root / "config.yaml", int(100 * scale)
    text = (Path(__file__).parents[1] / "config.yaml").read_text()
    for n in range(count):
        config.write_text(text + f"# {n}\ncache:\n  workers: {n + 1}\n")
        run = RunFolder(root, f"20260101-{n:06}-aaaa")
        run.create(config)
        run.write_record(os.getpid(), ["snakemake"], ["all"])
        for done in range(1000):
            append_event(run.events, JobsCounted(done=done, total=1000))
        append_event(run.events, RunEnded(time=1.0, done=1000, total=1000))
    print(f"history: {count} runs")
    reader = HistoryReader(root)
    with pauses() as found:
        row("  all runs with what changed, first time", timed(lambda: reader.refresh(full=True), 1))
    print(f"  pause: {max(found) * 1e3:.0f} ms")
    row("  all runs and orphans again", timed(lambda: reader.refresh(full=True)))
    row("  the lock and the newest run", timed(reader.refresh))
    system = SystemReader(root)
    row("  the machine without a run", timed(system.refresh))
    record = RunFolder(root, "20260101-000000-aaaa").record()
    row("  the machine with a run's processes", timed(lambda: system.refresh(record)))


def config(root: Path, scale: float) -> None:
    from tui.data.config_file import ConfigFile

    path = root / "config.yaml"
    path.write_text((Path(__file__).parents[1] / "config.yaml").read_text())
    print("config.yaml of the demo")
    file = ConfigFile.open(path)
    row("  form, first time", timed(file.form, 1))
    numbers = iter(range(1000))
    with pauses() as found:
        row("  one setting changed, checked", timed(lambda: file.set(("train", "seed"), next(numbers))))

        def change() -> None:
            file.set(("train", "seed"), next(numbers))
            file.form()

        row("  one setting changed, with the form", timed(change))
    print(f"  pause: {max(found) * 1e3:.0f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts: dict[str, Callable[[Path, float], None]] = {
        "config": config,
        "metrics": metrics,
        "log": log,
        "jobs": jobs,
        "runs": runs,
    }
    parser.add_argument("--scale", type=float, default=1.0, help="of the sizes (1)")
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    options = parser.parse_args()
    print(f"{'':46} {'CPU ms':>10} {'worst ms':>10}")
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            parts[name](Path(folder), options.scale)


if __name__ == "__main__":
    main()
