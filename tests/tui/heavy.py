"""A project that is larger and worse than any: long metrics, a huge log, thousands of jobs, many runs, hostile text."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

from hv15.atomic import write_json
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
from hv15.records.fields import to_json
from hv15.records.metrics import metrics_line
from hv15.runs import lock
from hv15.runs.record import RunFolder, append_event
from tests.records.steps import step_record

STEP = metrics_line(step_record(1, loss_by_sigma=(), step_s=1.0))
HOSTILE = "\x1b[31m[red]not markup[/] [@click=app.exit]\x1b]0;title\x07 [/nonsense \udce4\u202e"


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    steps: int = 1_000_000
    log_bytes: int = 1 << 30
    jobs: int = 10_000
    runs: int = 100
    captions: int = 500


class HeavyProject:
    """Writes the project; holds its lock, so that its last run counts as alive."""

    def __init__(self, root: Path, sizes: Sizes) -> None:
        self.root, self.sizes = root, sizes
        self.began = time.time() - 3600
        self.log = root / "results/logs/job.0.log"
        self.metrics = root / "results/train/metrics.jsonl"
        self.run = self._runs()
        self._config_and_clips()
        self._metrics()
        self._log()
        self._jobs()
        self.lock = lock.take(root, self.run.id)

    def close(self) -> None:
        """Let the last run be dead."""
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

    def _config_and_clips(self) -> None:
        clips = self.root / "clips"
        clips.mkdir(parents=True)
        for number in range(self.sizes.captions):
            (clips / f"clip{number:05}.mp4").write_bytes(b"no video")
            # the first one is no UTF-8; the others are, and hostile
            errors = "ignore" if number else "surrogateescape"
            (clips / f"clip{number:05}.txt").write_bytes(f"{HOSTILE} {number}".encode("utf-8", errors))
        text = "task: t2v\nmodels: {source: demo}\ndatasets:\n  - {video_directory: clips, resolution: [64, 64]}\n"
        (self.root / "config.yaml").write_text(text)

    def _runs(self) -> RunFolder:
        for number in range(self.sizes.runs):
            started = self.began - 86400 + number * 600 if number < self.sizes.runs - 1 else self.began
            run = RunFolder(self.root, time.strftime("%Y%m%d-%H%M%S-", time.localtime(started)) + f"{number:04x}")
            run.path.mkdir(parents=True)
            run.config.write_text(f"task: t2v\ntrain: {{learning_rate: {1e-4 * (1 + number)}}}\n")
            record = run.write_record(os.getpid(), ["snakemake"], [])
            write_json(run.record_file, to_json(replace(record, started=started)))
            if number < self.sizes.runs - 1:
                append_event(run.events, RunEnded(time=started + 60, done=3, total=3))
        return run

    def _metrics(self) -> None:
        self.metrics.parent.mkdir(parents=True)
        with self.metrics.open("w") as file:
            for first in range(1, self.sizes.steps + 1, 1000):
                steps = range(first, min(first + 1000, self.sizes.steps + 1))
                file.write("".join(self._step(step) for step in steps))

    def _step(self, step: int) -> str:
        loss = 0.1 + math.exp(-step / 1e5) * (1 + 0.1 * math.sin(step))
        changed = {"step": step, "epoch": step / 100, "loss": round(loss, 5), "time": round(self.began + step / 500, 3)}
        return json.dumps({**STEP, **changed}) + "\n"

    def _log(self) -> None:
        self.log.parent.mkdir(parents=True)
        lines = [f"step {number}: loss 0.123 {HOSTILE}\n" for number in range(10_000)]
        lines[5000] = "x" * 300_000 + "\n"
        lines[6000] = "".join(f"train {percent}%\r" for percent in range(100)) + "\n"
        block = "".join(lines).encode("utf-8", "surrogateescape") + b"\xff\xfe\x00\n"
        with self.log.open("wb") as file:
            for _ in range(max(1, self.sizes.log_bytes // len(block))):
                file.write(block)

    def _jobs(self) -> None:
        jobs = [
            JobDetails(
                id=number,
                rule=f"rule_{number % 7}",
                wildcards={"shard": str(number)},
                reason=f"Missing output files: {HOSTILE}",
                message=f"Job {HOSTILE}",
                log=(f"results/logs/job.{number}.log",),
                output=(f"out/{number}",),
            )
            for number in range(self.sizes.jobs)
        ]
        with self.run.events.open("wb") as file:

            def write(event: RunEvent) -> None:
                file.write(json.dumps(event_line(event)).encode() + b"\n")

            half = self.sizes.jobs // 2
            write(JobsPlanned(time=self.began, jobs=tuple(jobs), total=len(jobs)))
            for job in jobs[:half]:
                write(JobStarted(time=self.began + 1, job=job))
                if job.id:
                    write(JobDone(time=self.began + 2, id=job.id))
            write(JobsCounted(time=self.began + 3, done=half - 1, total=len(jobs)))
