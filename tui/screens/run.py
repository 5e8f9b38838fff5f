"""Run: start, watch and stop the workflow. Jobs beside the loss over the device, and the end of a log."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from hv15.runs import control
from hv15.terminal_text import visible
from tui.data.alerts import alerts
from tui.data.curves import LOSS, Series
from tui.data.jobs import Job, JobState
from tui.data.metrics import TrainingStatus
from tui.data.preflight import machine_checks
from tui.data.rerun import DryRun
from tui.data.system import SystemSample
from tui.dialogs.confirm import Answer, Confirm
from tui.dialogs.start import StartDialog
from tui.messages import JobsSeen, MachineSeen, MetricsSeen, OpenLog, RunSeen, TailSeen
from tui.project_files import JobsView, RunView
from tui.screens.base import TRAINING_TIP, DashboardScreen
from tui.units import duration, number
from tui.widgets.chart import Chart, curves_to_draw
from tui.widgets.failure_panel import FailurePanel
from tui.widgets.jobs_table import JobsTable
from tui.widgets.log_tail import LogTail
from tui.widgets.machine_panel import MachinePanel
from tui.widgets.rows import Rows

IDLE = "no run yet: s shows what would run, and starts it"


class RunScreen(DashboardScreen):
    """The screen that is shown first."""

    NAME: ClassVar[str] = "run"
    READS: ClassVar[frozenset[str]] = frozenset({"tail"})
    FIRST: ClassVar[str] = "#jobs"
    CSS_PATH = "run.tcss"
    HELP = """The run of this project: its jobs, the loss, the device, and the end of a log. s starts (after showing
    what would run), x stops, x again kills. i shows the training's validation, average, segments and warnings. A run
    continues when the dashboard is closed; opened again, it is there."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "start", "Start", id="run-start", tooltip="show what would run, and start it"),
        Binding("x", "stop", "Stop", id="run-stop", tooltip="stop: save, then end; again = kill"),
        Binding("d", "dry_run", "Dry run", id="run-dry-run", tooltip="show what would run, and why"),
        Binding("w", "save_now", "Save now", id="run-save", tooltip="make the training save its state now"),
        Binding("p", "sample_now", "Sample now", id="run-sample", show=False, tooltip="make samples after this step"),
        Binding("l", "open_log", "Log", id="run-log", tooltip="open the log of the job under the cursor"),
        Binding(
            "o",
            "output",
            "Output",
            id="run-output",
            show=False,
            tooltip="follow Snakemake's own output, or a job's log",
        ),
        Binding("i", "training", "Training", id="run-training", show=False, tooltip=TRAINING_TIP),
        Binding("y", "log_axis", "Log axis", id="run-axis", show=False, tooltip="linear or logarithmic loss"),
        Binding("u", "unlock", "Unlock", id="run-unlock", show=False, tooltip="remove the lock of a killed Snakemake"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.run_view = RunView(None)
        self.jobs_view: JobsView | None = None
        self.training: TrainingStatus | None = None
        self.machine: SystemSample | None = None
        self._chosen: int | None = None
        """The job whose log a person has chosen."""
        self._output = False

    def body(self) -> Iterable[Widget]:
        yield FailurePanel(classes="pane")
        yield Static(id="run-notice")
        with Container(id="run-rows"):
            with Horizontal(id="run-top"):
                with Vertical(id="jobs-pane", classes="pane"):
                    yield JobsTable(id="jobs")
                    yield Static(id="job-reason")
                with Vertical(id="run-right"):
                    yield Chart("Loss", id="loss", classes="pane")
                    yield MachinePanel(id="machine").add_class("pane")
            yield LogTail(id="tail").add_class("pane")

    def on_mount(self) -> None:
        self.query_one("#jobs-pane").border_title = "Jobs"
        self.query_one("#machine").border_title = "Device"
        self.query_one("#tail").border_title = "Log"
        self.query_one(JobsTable).empty = IDLE
        self.set_interval(1.0, self.query_one(JobsTable).tick)

    # What is seen

    def on_run_seen(self, message: RunSeen) -> None:
        self.run_view = message.view
        if not self.run_view.alive and self.run_view.current is None:
            self.query_one(JobsTable).empty = IDLE
        self._notice()
        self._choose_log()

    def on_jobs_seen(self, message: JobsSeen) -> None:
        view = self.jobs_view = message.view
        self.query_one(JobsTable).set_rows(view.jobs)
        waiting = "the run is starting" if self.run_view.alive else "the run recorded no jobs"
        self.query_one(JobsTable).empty = view.progress.error or waiting
        progress = view.progress
        parts = [f"{progress.done}/{progress.total}"] if progress.total else []
        parts += [f"{progress.running} running"] if progress.running else []
        parts += [f"✗ {progress.failed} failed"] if progress.failed else []
        if progress.eta_s and not progress.ended:
            parts.append(f"ETA {'≥' if progress.eta_is_least else ''}{duration(progress.eta_s)}")
        self.query_one("#jobs-pane").border_subtitle = Content(" · ".join(parts))
        self.query_one(FailurePanel).cards = view.failures
        self._say_reason(self.query_one(JobsTable).current)
        self._choose_log()

    def on_metrics_seen(self, message: MetricsSeen) -> None:
        self.training = message.view.training
        self._notice()
        self._load_loss()

    def on_machine_seen(self, message: MachineSeen) -> None:
        self.machine = message.sample
        names = [
            "cpu",
            "memory",
            *(f"gpu{gpu.index}_{what}" for gpu in message.sample.gpus for what in ("used", "utilisation")),
        ]
        rings = {name: self.dashboard.files.ring(name)[1] for name in names}
        self.query_one(MachinePanel).show(message.sample, rings, self.dashboard.files.peak)
        self._notice()

    def on_tail_seen(self, message: TailSeen) -> None:
        tail = self.query_one(LogTail)
        if message.view.path == self.dashboard.files.tail_of:
            tail.show(message.view.path, message.view.lines, empty=message.view.error or "nothing written yet")
            tail.border_title = Content(f"Log · {self._short(message.view.path)}")

    def on_screen_resume(self) -> None:
        self._choose_log()

    def _notice(self) -> None:
        """Show what a person should know, first what can be acted on: a short screen shows two lines."""
        view, lines = self.run_view, []
        current = view.current
        for orphan in view.orphans[:3]:
            lines.append(f"pid {orphan.pid} of a dead run still works here: x ends it")
        if current is not None and not current.alive and current.reason and str(current.state) != "finished":
            lines.append(f"the last run {_ended(str(current.state))}: {current.reason}")
        if view.locked and not view.alive:
            lines.append("a killed run left Snakemake's lock behind: the next start removes it (u: now)")
        if view.error:
            lines.append(view.error)
        for alert in alerts(current, self.training if view.alive else None, self.machine):
            if alert.kind not in ("died", "failed"):
                lines.append(f"! {alert.text}" + (f": {alert.cure}" if alert.cure else ""))
        self.query_one("#run-notice").set_class(bool(lines), "-shown")
        self.say("#run-notice", Content("\n".join(dict.fromkeys(lines))))

    # Loss

    def _load_loss(self) -> None:
        chart = self.query_one("#loss", Chart)
        if not self.is_current or chart.zoomed:
            return
        columns, files = chart.columns, self.dashboard.files

        def load() -> list[Series]:
            return [files.series(curve, columns=columns) for curve in LOSS.curves]

        self.in_thread("loss", load, self._show_loss)

    def _show_loss(self, found: list[Series]) -> None:
        training = self.training
        note = "" if training is None or training.loss_smooth is None else number(training.loss_smooth)
        if training is not None and training.former:
            note = "of the training before this run"
        self.query_one("#loss", Chart).show(curves_to_draw(LOSS, found), note=note)

    def action_log_axis(self) -> None:
        chart = self.query_one("#loss", Chart)
        chart.log_axis = not chart.log_axis
        chart.show(chart.curves, note=chart.note)

    # Jobs and logs

    @on(Rows.Moved, "#jobs")
    def _job_moved(self) -> None:
        table = self.query_one(JobsTable)
        job = table.current
        self._chosen = job.id if job is not None and table.held else None
        self._say_reason(job)
        self._choose_log()

    @on(Rows.Chosen, "#jobs")
    def action_open_log(self) -> None:
        path = self._log_of(self.query_one(JobsTable).current) or self.dashboard.files.tail_of
        if path is not None:
            self.post_message(OpenLog(path))

    def action_output(self) -> None:
        self._output = not self._output
        self._choose_log()

    def _say_reason(self, job: Job | None) -> None:
        text = "" if job is None else f"why: {job.reason}" if job.reason else ""
        self.say("#job-reason", Content(text))

    def _choose_log(self) -> None:
        """Follow the log of the chosen job, else of the one that failed or runs, else Snakemake's output."""
        if not self.is_attached:
            return
        jobs = self.jobs_view.jobs if self.jobs_view else ()
        output = self.run_view.current.folder.output if self.run_view.current else None
        chosen = (job for job in jobs if job.id == self._chosen)
        others = (job for state in (JobState.FAILED, JobState.RUNNING) for job in jobs if job.state is state)
        logs = (path for job in chain(chosen, others) if (path := self._log_of(job)) is not None)
        path = output if self._output else next(logs, output)
        if path != self.dashboard.files.tail_of:
            self.dashboard.files.tail_of = path
            tail = self.query_one(LogTail)
            tail.border_title = Content(f"Log · {self._short(path)}" if path else "Log")
            tail.show(path, (), empty="nothing written yet" if path else "no log yet")
            self.dashboard.watcher.refresh("tail")

    def _log_of(self, job: Job | None) -> Path | None:
        return self.dashboard.files.root / job.log[0] if job is not None and job.log else None

    def _short(self, path: Path) -> str:
        root = self.dashboard.files.root
        return visible(str(path.relative_to(root) if path.is_relative_to(root) else path))

    # Start and stop

    def action_start(self) -> None:
        if self.run_view.alive:
            self.notify("a run is in progress; x stops it", title="Start", severity="warning", markup=False)
            return
        notes = ["a killed run left Snakemake's lock behind; the start removes it"] if self.run_view.locked else []
        if self.dashboard.unsaved:
            notes.append(f"not saved, so not used: {', '.join(self.dashboard.unsaved)}")
        if self.machine is not None and self.machine.gpus:
            notes += [f"{check.subject}: {check.text}" for check in machine_checks(self.machine)]
        self.app.push_screen(
            StartDialog(self._plans, self.dashboard.files.preflight, notes="\n".join(notes)), self._start
        )

    def _start(self, targets: list[str] | None) -> None:
        if targets is None:
            return
        files, table = self.dashboard.files, self.query_one(JobsTable)
        table.empty = "the run is starting"

        def refused(error: Exception) -> None:
            table.empty = IDLE
            self.show_error(error)

        self.in_thread("start", lambda: files.start(targets), self._say_done, refused)

    def _plans(self, targets: list[str]) -> DryRun:
        return self.dashboard.files.dry_run(targets=targets)

    def action_dry_run(self) -> None:
        self.app.push_screen(StartDialog(self._plans, self.dashboard.files.preflight, start=False))

    def action_stop(self) -> None:
        view = self.run_view
        if not view.alive and not view.orphans:
            self.notify("nothing runs here", title="Stop", markup=False)
            return
        stopping = view.state == "stopping"
        kill = Answer("kill", "Kill now", "x" if stopping else "k", "error")
        if stopping:
            text = "It was asked to stop and is still saving. If killed, it loses its work since the last state."
            answers = [kill]
        elif view.alive:
            text = "The training finishes its step and saves its state; the next start resumes from there."
            answers = [Answer("stop", "Save and stop", "x", "warning"), kill]
        else:
            text = "No run is alive, but processes of a dead run still work here."
            answers = [Answer("stop", "Save and end them", "x", "warning"), kill]
        self.app.push_screen(Confirm("Stop the run?", text, answers), self._stop)

    def _stop(self, answer: str | None) -> None:
        if answer is not None:
            root, now = self.dashboard.files.root, answer == "kill"
            words = "killed" if now else "asked to stop: it saves first (x again kills it)"
            self.in_thread("stop", lambda: control.stop(root, now=now), lambda _: self._say_done(words))

    def action_save_now(self) -> None:
        root = self.dashboard.files.root
        self.in_thread(
            "save", lambda: control.save_now(root), lambda _: self._say_done("the training saves after this step")
        )

    def action_sample_now(self) -> None:
        root, done = self.dashboard.files.root, "the training makes samples after this step: see Samples"
        self.in_thread("sample", lambda: control.sample_now(root), lambda _: self._say_done(done))

    def action_unlock(self) -> None:
        config = self.dashboard.config_file
        self.in_thread(
            "unlock",
            lambda: control.unlock(config),
            lambda removed: self._say_done("unlocked" if removed else "nothing was locked"),
        )

    def _say_done(self, words: str) -> None:
        self.notify(words, markup=False)
        self.dashboard.watcher.refresh("run", "jobs")


def _ended(state: str) -> str:
    return {"failed": "failed", "stopped": "was stopped", "died": "died"}.get(state, state)
