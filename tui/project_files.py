"""The readers of one project, each used by one thread, and the sources that the watcher makes of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

from hv15.runs.metrics import kept_files, record_of, training_files
from hv15.runs.record import RunFolder
from hv15.runs.state import RunState
from tui.data.curves import Axis, CurveSource, Series
from tui.data.estimate import Estimation
from tui.data.experiments import ExperimentsReader, ExperimentsView
from tui.data.failures import FailureCard, failure_cards
from tui.data.history import HistoryReader, Orphan, RunRow
from tui.data.jobs import Job, JobsReader, JobState, RuleCount, RunProgress
from tui.data.log_file import LogFile
from tui.data.metrics import MetricsReader, TrainingStatus
from tui.data.overlay_names import overlay_names
from tui.data.preflight import Preflight
from tui.data.projects import ProjectsReader, ProjectsView
from tui.data.rerun import DryRun
from tui.data.starting import start_run
from tui.data.system import GpuSource, SystemReader, SystemSample
from tui.data.training_facts import TrainingFacts, training_facts
from tui.messages import ExperimentsSeen, JobsSeen, MachineSeen, MetricsSeen, ProjectsSeen, RunSeen, TailSeen
from tui.watcher import AnySource, WatchedSource

FULL_S = 5.0
"""How often the whole history and the orphans are read; the newest run is read each time."""


TAIL_LINES = 200
OVERLAY_S = 0.1
"""How long one further metrics file is read at a time."""


@dataclass(frozen=True)
class RunView:
    """What runs in the project, and what ran before."""

    current: RunRow | None
    rows: tuple[RunRow, ...] = ()
    """Newest first."""
    orphans: tuple[Orphan, ...] = ()
    locked: bool = False
    """Whether Snakemake's lock was left by a run that was killed."""
    error: str = ""

    @property
    def state(self) -> str:
        return str(self.current.state) if self.current else "idle"

    @property
    def alive(self) -> bool:
        return self.current is not None and self.current.alive


@dataclass(frozen=True)
class JobsView:
    """The jobs of the run that is watched, in the order in which they are shown."""

    run: str
    jobs: tuple[Job, ...]
    rules: tuple[RuleCount, ...]
    progress: RunProgress
    failures: tuple[FailureCard, ...] = ()


@dataclass(frozen=True)
class MetricsView:
    """How far the training is. `version` grows whenever there is more to draw."""

    version: int
    training: TrainingStatus
    complete: bool
    share: float
    """How much of the file was read, from 0 to 1."""
    label: str = ""
    error: str = ""


@dataclass(frozen=True)
class TailView:
    """The end of a log, without escape sequences."""

    path: Path
    lines: tuple[str, ...]
    error: str = ""


class ProjectFiles:
    """Everything that is read from one project."""

    def __init__(self, config: Path, *, gpus: GpuSource | None = None, clock: Callable[[], float] = time.time) -> None:
        self.config, self.root, self._clock = config, config.parent, clock
        self._history = HistoryReader(self.root, clock=clock)
        self._full_due = 0.0
        self._system = SystemReader(self.root, gpus, clock=clock)
        self._rings: dict[str, tuple[list[float], list[float]]] = {}
        self.peaks: dict[str, int] = {}
        """The peak memory, in bytes, of each phase (rule) of the run."""
        self._phase = ""
        self._jobs: JobsReader | None = None
        self._jobs_of = ""
        self._jobs_seen: tuple[object, ...] = ()
        self._current: RunRow | None = None
        self._training: TrainingStatus | None = None
        self._metrics_lock = Lock()
        self._readers: dict[Path, MetricsReader] = {}
        self._version = 0
        self.overlaid: tuple[tuple[str, Path], ...] = ()
        """Names and metrics files of the trainings drawn over one another; empty for only the watched one."""
        self._overlay_names: tuple[tuple[tuple[str, Path], ...], dict[str, str]] = ((), {})
        self._experiments = ExperimentsReader(config, self._reader)
        self._experiments_seen: ExperimentsView | None = None
        self._projects = ProjectsReader(config)
        self._projects_seen: ProjectsView | None = None
        self.due_experiments: frozenset[str] = frozenset()
        """Those of which something would be made again, when that was last asked."""
        self.tail_of: Path | None = None
        """The log whose end is followed; a screen chooses it."""
        self._tail: LogFile | None = None
        self._tail_size = -1

    def sources(self) -> list[AnySource]:
        """Return what the watcher reads for the status line and the screens."""
        return [
            WatchedSource("run", self.read_run, RunSeen, always=True),
            WatchedSource("jobs", self.read_jobs, JobsSeen, always=True, share=0.02),
            WatchedSource("metrics", self.read_metrics, MetricsSeen, always=True),
            WatchedSource("machine", self.read_machine, MachineSeen, interval_s=2.0, always=True),
            WatchedSource("tail", self.read_tail, TailSeen),
            WatchedSource("experiments", self.read_experiments, ExperimentsSeen, interval_s=2.0, share=0.1),
            WatchedSource("projects", self.read_projects, ProjectsSeen, share=0.1),
        ]

    def read_run(self) -> RunView | None:
        """Read the lock and the newest run each time, and the whole history every few seconds."""
        full = time.monotonic() >= self._full_due
        if full:
            self._full_due = time.monotonic() + FULL_S
        changed = self._history.refresh(full=full)
        self._current = self._history.current
        if not changed:
            return None
        history = self._history
        return RunView(history.current, history.rows, history.orphans, history.locked, history.error)

    def read_jobs(self) -> JobsView | None:
        """Read the new events of the newest run."""
        run = self._current
        if run is None:
            return None
        if self._jobs is None or self._jobs_of != run.id:
            self._jobs, self._jobs_of = JobsReader(run.folder.events, self.root, clock=self._clock), run.id
            self._jobs_seen = ()
        more = self._jobs.refresh()
        if not run.alive and (self._jobs.complete or not more):  # the last line may be incomplete
            self._jobs.cut_short(run.ended)
        progress = self._jobs_progress(run.alive)
        if (progress, run.state) == self._jobs_seen:
            return None
        jobs = self._jobs.ordered()
        self._phase = jobs[0].rule if jobs and jobs[0].state == JobState.RUNNING else ""
        failed = () if run.alive and not progress.failed else failure_cards(self.root, jobs, run.status)
        if run.state in (RunState.STOPPING, RunState.STOPPED) and progress.failed:
            explained = {card.job.id for card in failed if card.job is not None}
            unexplained = [job.id for job in jobs if job.state is JobState.FAILED and job.id not in explained]
            self._jobs.count_as_cut(unexplained)
            jobs, progress = self._jobs.ordered(), self._jobs_progress(run.alive)
        self._jobs_seen = (progress, run.state)
        return JobsView(run.id, jobs, self._jobs.by_rule(), progress, tuple(failed))

    def _jobs_progress(self, alive: bool) -> RunProgress:
        assert self._jobs is not None
        progress = self._jobs.progress(self._training.eta_s if self._training and alive else None)
        return progress if alive else replace(progress, eta_s=None)  # a dead run will never be done

    def read_metrics(self) -> MetricsView | None:
        """Read the new metrics of the training that writes now, or of the last one that did."""
        label, path = self.training()
        with self._metrics_lock:
            reader = self._reader(path, label)
            changed = reader.refresh()
            for other_label, other in self.overlaid:
                if other != path:
                    changed |= self._reader(other, other_label).refresh(OVERLAY_S)
            training = self._of_this_run(reader.status(), path)
            before, self._training = self._training, training
            otherwise = before is None or (before.stalled, before.former) != (training.stalled, training.former)
            if not (changed or otherwise):
                return None
            self._version += 1
            return MetricsView(self._version, training, reader.complete, reader.share, label, reader.error)

    def _of_this_run(self, training: TrainingStatus, path: Path) -> TrainingStatus:
        """Remove what only holds for a training in progress, while the live run has not begun its own training."""
        run = self._current
        if run is None or not run.alive or run.started is None or _modified(path) >= run.started:
            return training
        return replace(training, stalled=False, eta_s=None, former=True)

    def training(self) -> tuple[str, Path]:
        """Return the name and the metrics file of the training that wrote last."""
        dated = [(_modified(path), label, path) for label, path in training_files(self.root)]
        return max(dated)[1:]

    def series(
        self,
        curve: CurveSource,
        *,
        path: Path | None = None,
        axis: Axis = "step",
        columns: int | None = None,
        start: float | None = None,
        end: float | None = None,
    ) -> Series:
        """Return a curve, as far as it has been read; of the watched training unless another file is given."""
        if path is None:
            label, path = self.training()
        else:
            label = next((name for name, file in self.overlaid if file == path), "")
        return self._reader(path, label).series(curve, axis=axis, columns=columns, start=start, end=end)

    def training_facts(self) -> TrainingFacts:
        """Return what is known, besides its curves, of the training that is drawn alone, or of the watched one."""
        label, path = self.overlaid[0] if len(self.overlaid) == 1 else self.training()
        reader = self._reader(path, label)
        return training_facts(label, path, reader.status(), reader.told(), record_of(path))

    def overlay_names(self) -> dict[str, str]:
        """Return what distinguishes each of the trainings drawn over one another, by label, as far as it is known."""
        if self._overlay_names[0] != self.overlaid:
            self._overlay_names = self.overlaid, overlay_names(dict(self.overlaid))
        return self._overlay_names[1]

    def trainings(self) -> list[tuple[str, Path]]:
        """Return the project's existing metrics files, with their names."""
        return [(label, path) for label, path in training_files(self.root) if path.is_file()]

    def metrics_of(self, run: RunRow) -> list[tuple[str, Path]]:
        """Return the curves that a run has kept, or for the newest run those that it has written so far."""
        kept = kept_files(run.folder)
        if kept:
            return [(f"{run_label(run.folder)} {label}", path) for label, path in kept]
        if self._current is None or self._current.id != run.id or run.started is None:
            return []
        return [(label, path) for label, path in self.trainings() if _modified(path) >= run.started]

    def read_machine(self) -> SystemSample:
        """Measure the machine and the processes of the run."""
        run = self._current
        record = run.folder.record() if run is not None and run.alive else None
        sample = self._system.refresh(record, self._phase if record is not None else "")
        names = ["cpu", "memory", "rss", "disk_free"]
        names += [f"gpu{gpu.index}_{what}" for gpu in sample.gpus for what in ("used", "utilisation")]
        self._rings = {name: self._system.ring(name) for name in names}
        self.peaks = dict(self._system.peaks)
        return sample

    def read_tail(self) -> TailView | None:
        """Read the end of the log that is followed."""
        path = self.tail_of
        if path is None:
            return None
        if self._tail is None or self._tail.path != path:
            self._tail, self._tail_size = LogFile(path), -1
        size = _size(path)
        if size == self._tail_size:
            return None
        self._tail_size = size
        return TailView(path, tuple(self._tail.tail(TAIL_LINES)), self._tail.error)

    def ring(self, name: str) -> tuple[list[float], list[float]]:
        """Return times and values of the machine's last minutes, up to its last measurement."""
        return self._rings.get(name, ([], []))

    def read_experiments(self) -> ExperimentsView | None:
        """Read how far the experiments are."""
        run = self._current
        jobs = self._jobs.jobs if self._jobs is not None else ()
        alive = run is not None and run.alive
        with self._metrics_lock:
            found = self._experiments.read(jobs, alive=alive, due=self.due_experiments)
        if found == self._experiments_seen:
            return None
        self._experiments_seen = found
        return found

    def read_projects(self) -> ProjectsView | None:
        """Read the queue and the other projects."""
        found = self._projects.read()
        if found == self._projects_seen:
            return None
        self._projects_seen = found
        return found

    def dry_run(self, text: str | None = None, targets: Sequence[str] = ()) -> DryRun:
        """Return a question to `hv15 why`: what would run with this text as config (None: the file on disk)."""
        return DryRun(self.config, text, targets=targets)

    def estimation(self, text: str | None = None) -> Estimation:
        """Return a question to `hv15 plan`: the memory and time with this text as config (None: the file on disk)."""
        return Estimation(self.config, text)

    def preflight(self) -> Preflight:
        """Return a check of weights, dataset, captions and disk before a start."""
        return Preflight(self.config)

    def start(self, targets: Sequence[str]) -> str:
        """Start a run as `hv15 run` does, and return in one line that it was started.

        Raises:
            UserError: the config or what it names cannot be used, or a run is in progress.
        """
        return start_run(self.config, targets)

    @property
    def peak(self) -> int:
        """The run's peak memory so far, on the GPU if there is one."""
        return max(self.peaks.values(), default=0)

    def _reader(self, path: Path, label: str) -> MetricsReader:
        if path not in self._readers:
            self._readers[path] = MetricsReader(path, label=label)
        return self._readers[path]


def run_label(run: RunFolder) -> str:
    """Return a run's id as people read it: 11-25 18:46:05."""
    text = run.id
    if not (text[:8].isdigit() and text[9:15].isdigit()):
        return text
    return f"{text[4:6]}-{text[6:8]} {text[9:11]}:{text[11:13]}:{text[13:15]}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
