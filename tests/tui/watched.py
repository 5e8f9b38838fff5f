"""A project whose files are values of the test: what the watcher reads is what was set last."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from textual.message import Message
from textual.pilot import Pilot
from textual.worker import WorkerError

from hv15.errors import UserError
from hv15.records.failures import Failure, FailureKind
from hv15.runs.record import RunFolder
from hv15.runs.state import RunState
from tests.tui.first import begun_at
from tui.app import Dashboard
from tui.data.config_diff import Change
from tui.data.estimate import Estimate
from tui.data.experiments import ExperimentsView
from tui.data.failures import FailureCard
from tui.data.gpus import Gpu
from tui.data.history import RunRow
from tui.data.jobs import Job, JobState, RunProgress
from tui.data.metrics import TrainingStatus
from tui.data.rerun import DueStage, Rerun
from tui.data.system import SystemSample
from tui.messages import ExperimentsSeen, JobsSeen, MachineSeen, MetricsSeen, ProjectsSeen, RunSeen, TailSeen
from tui.project_files import JobsView, MetricsView, ProjectFiles, RunView, TailView
from tui.watcher import WatchedSource

NOW = 1_800_000_000.0
GIB = 2**30
CONFIG = """\
# a project of the tests
task: t2v

models:
  source: demo # no files

datasets:
  - video_directory: clips # where they lie
    resolution: [64, 64]
    target_frames: [9]

train:
  max_train_steps: 20
  learning_rate: 1e-3   # three spaces before this
  network_dim: 8

sample:
  video_size: [64, 64]
  video_length: 9
  prompts:
    - name: circle
      prompt: a red circle
"""


class Asked:
    """Stands for a DryRun or an Estimation."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.cancelled = answer, False

    def run(self) -> Any:
        return self.answer

    def cancel(self) -> None:
        self.cancelled = True


class Watched(ProjectFiles):
    """Views are given, not read; curves are read as always."""

    def __init__(self, config: Path) -> None:
        super().__init__(config)
        self.views: dict[str, Any] = {"run": RunView(None)}
        self.plan: Any = Rerun((planned(1, "train", "learning_rate changed"),))
        self.estimate: Any = Estimate()
        self.checks: Any = ()
        self.refusal: UserError | None = None
        """Why nothing can be started."""
        self.started: list[list[str]] = []
        """The targets of the runs that were started."""
        self.asked: list[tuple[str | None, tuple[str, ...]]] = []
        """Texts and targets of which a dry run was asked."""
        self.real_metrics = self.real_experiments = self.real_projects = False
        self.jobs_of_run: tuple[Job, ...] = ()
        self.is_alive = False

    def sources(self) -> list[WatchedSource]:
        def given(name: str) -> Callable[[], Any]:
            return lambda: self.views.pop(name, None)

        metrics = self.read_metrics if self.real_metrics else given("metrics")
        return [
            WatchedSource("run", given("run"), RunSeen, always=True),
            WatchedSource("jobs", given("jobs"), JobsSeen, always=True),
            WatchedSource("metrics", metrics, MetricsSeen, always=True),
            WatchedSource("machine", given("machine"), MachineSeen, always=True),
            WatchedSource("tail", self.followed, TailSeen),
            WatchedSource("experiments", self.read_given_experiments, ExperimentsSeen),
            WatchedSource("projects", self.read_projects if self.real_projects else lambda: None, ProjectsSeen),
        ]

    def read_given_experiments(self) -> ExperimentsView | None:
        """They are read from files, but the jobs are given."""
        if not self.real_experiments:
            return None
        return self._experiments.read(self.jobs_of_run, alive=self.is_alive, due=self.due_experiments)

    def followed(self) -> TailView | None:
        return self.views.pop("tail", None)

    def dry_run(self, text: str | None = None, targets: Any = ()) -> Any:
        self.asked.append((text, tuple(targets)))
        return Asked(self.plan)

    def start(self, targets: Any) -> str:
        if self.refusal is not None:
            raise self.refusal
        self.started.append(list(targets))
        return "started 20270115-080000-0000: it continues when this terminal is closed"

    def preflight(self) -> Any:
        return Asked(self.checks)

    def estimation(self, text: str | None = None) -> Any:
        return Asked(self.estimate)


def project(folder: Path) -> Path:
    config = folder / "config.yaml"
    config.write_text(CONFIG)
    return config


def dashboard(folder: Path, *, at: str = "run", **views: Any) -> Dashboard:
    config = folder / "config.yaml"
    files = Watched(config if config.exists() else project(folder))
    files.views.update(views)
    return begun_at(at, config, files, "node7")


async def settle(pilot: Pilot[None], **views: Any) -> None:
    """Let the watcher read what is set, and the screens show it."""
    app = pilot.app
    assert isinstance(app, Dashboard)
    app.files.views.update(views)  # type: ignore[attr-defined]
    app.watcher.refresh()
    own = ("source-", "config-", "run-", "charts-", "runs-", "experiments-", "projects-", "plan", "forecast")
    for _ in range(3):
        await pilot.pause()
        for worker in [each for each in app.workers if each.group.startswith(own)]:
            with contextlib.suppress(WorkerError):  # a newer one of its name may have ended it
                await worker.wait()
    await pilot.pause()


def text_of(app: Dashboard) -> str:
    """What is on the screen."""
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


def of_type(messages: list[Message], *kinds: type[Message]) -> list[str]:
    """The names of the messages of these kinds in their order, each once in a row."""
    names = [type(message).__name__ for message in messages if isinstance(message, kinds)]
    return [name for place, name in enumerate(names) if place == 0 or names[place - 1] != name]


def run_row(
    state: RunState = RunState.RUNNING, *, number: int = 0, root: Path = Path("/project"), **more: Any
) -> RunRow:
    ended = None if state.alive else NOW - 4000 * number + 300
    row = RunRow(
        id=f"20270115-08{number % 60:02d}00-{number:04x}",
        state=state,
        reason="",
        started=NOW - 4000 * number,
        ended=ended,
        seconds=None if ended is None else 300.0,
        done=2,
        total=5,
        failed=0,
        targets=("results/lora.safetensors",),
        host="node7",
        command="python -m snakemake results/lora.safetensors",
        folder=RunFolder(root, f"20270115-08{number % 60:02d}00-{number:04x}"),
        changes=(Change("train.learning_rate", "0.0001", "0.0002"),) if number % 2 else (),
    )
    return replace(row, **more)


def run_view(state: RunState = RunState.RUNNING, **more: Any) -> RunView:
    row = run_row(state, **more)
    return RunView(row, (row,))


def job(number: int, state: JobState = JobState.WAITING, rule: str = "encode_latents", **more: Any) -> Job:
    found = Job(
        id=number,
        rule=rule,
        wildcards={"shard": str(number)},
        title=f"Encoding shard {number}",
        state=state,
        reason="its output is not there",
        log=(f"results/logs/{rule}.{number}.log",),
        started=NOW if state != JobState.WAITING else None,
        seconds=12.0 if state == JobState.DONE else None,
    )
    return replace(found, **more)


def jobs_view(*jobs: Job, failures: tuple[FailureCard, ...] = (), **more: Any) -> JobsView:
    count = [job.state for job in jobs].count
    progress = RunProgress(
        done=count(JobState.DONE),
        total=len(jobs),
        running=count(JobState.RUNNING),
        failed=count(JobState.FAILED),
        eta_s=125.0,
        eta_is_least=False,
        ended=False,
        error="",
    )
    return JobsView("run", jobs, (), replace(progress, **more), failures)


def card(
    cause: str = "the GPU ran out of memory", tail: tuple[str, ...] = ("step 3", "CUDA [bold]oom[/]")
) -> FailureCard:
    return FailureCard(
        "train", Failure(cause, "train.blocks_to_swap: 20", FailureKind.MEMORY), Path("/project/train.log"), tail, None
    )


def training(step: int = 812, total: int = 2000, **more: Any) -> TrainingStatus:
    found = TrainingStatus(
        step=step,
        total=total,
        step_s=1.1,
        eta_s=1300.0,
        silent_s=1.0,
        stalled=False,
        loss=0.1,
        loss_smooth=0.0987,
    )
    return replace(found, **more)


def metrics_view(version: int = 1, **more: Any) -> MetricsView:
    return MetricsView(version, training(**more), True, 1.0, "train")


def machine(*gpus: Gpu, **more: Any) -> SystemSample:
    sample = SystemSample(
        time=NOW,
        cpu=45.0,
        cpus=16,
        memory_used=30 * GIB,
        memory_total=128 * GIB,
        rss=5 * GIB,
        processes=(),
        disk_free=300 * GIB,
        disk_total=2000 * GIB,
        gpus=gpus,
        note="" if gpus else "no NVIDIA GPU or driver here",
    )
    return replace(sample, **more)


def gpu(used: int = 71 * GIB) -> Gpu:
    return Gpu(0, "H100", used, 80 * GIB, utilisation=98.0, temperature=63.0, power=412.0)


def planned(number: int, rule: str, reason: str) -> DueStage:
    return DueStage(f"{rule}.{number}", f"{rule} {number}", (reason,))
