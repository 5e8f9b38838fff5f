"""Real Snakemake processes: started, refused, stopped, killed, found again."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from hv15 import cli
from hv15.commands import runs
from hv15.errors import USER_ERROR, UserError
from hv15.records.events import JobDone, JobFailed, JobsPlanned, JobStarted, RecordingStarted, RunEvent
from hv15.records.paths import ProjectPaths
from hv15.runs import control, lock
from hv15.runs.processes import kill, run_processes
from hv15.runs.record import RunFolder, history
from hv15.runs.state import RunState, RunStatus, all_events, current, status
from tests.records.steps import lines, step_record
from tests.runs.project import FAILS, SAVES, by_hand, make_project, wait_until

CORES = ("--cores", "1")
Event = TypeVar("Event", bound=RunEvent)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A project folder; whatever still runs there in the end is killed."""
    yield tmp_path / "project"
    for run in history(tmp_path / "project"):
        if record := run.record():
            kill(record)


def events(run: RunFolder, kind: type[Event]) -> list[Event]:
    return [event for event in all_events(run.events) if isinstance(event, kind)]


def start(root: Path) -> RunFolder:
    return control.start(root, ["all"], CORES)


def ended(run: RunFolder) -> RunStatus:
    wait_until(lambda: lock.holder(run.root) is None)
    return status(run, None)


def test_a_run_goes_to_its_end_and_is_recorded(root: Path) -> None:
    run = start(make_project(root))
    done = ended(run)
    assert (done.state, done.done, done.total, done.failed) == (RunState.FINISHED, 3, 3, ())
    assert run.config.read_text() == "task: t2v # as it was\n"
    [plan] = events(run, JobsPlanned)
    first = next(job for job in plan.jobs if job.rule == "first")
    assert first.wildcards == {"name": "a"}
    assert "Missing output files: results/a.txt" in first.reason
    assert first.log == ("results/logs/first.a.log",)
    assert isinstance(all_events(run.events)[0], RecordingStarted)
    assert events(run, JobStarted)[0].job.id == events(run, JobDone)[0].id == first.id
    assert "3 of 3 steps" in run.output.read_text()


def test_a_second_start_is_refused_and_a_stop_lets_the_job_save(root: Path) -> None:
    run = start(make_project(root, first=SAVES))
    with pytest.raises(UserError, match="a run is already in progress"):
        start(root)
    wait_until((root / "at-work").exists)
    assert control.stop(root).state is RunState.RUNNING
    assert ended(run).state is RunState.STOPPED
    assert (root / "results/logs/first.a.log").read_text() == "saved\n"
    assert history(root) == [run]


@pytest.mark.slow
def test_a_run_that_a_script_started_in_the_background_can_be_stopped(root: Path) -> None:
    """There, a shell lets Ctrl-C be ignored, and all that is started inherits it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run = start(make_project(root, first=SAVES))
        wait_until((root / "at-work").exists)
        control.stop(root)
        assert ended(run).state is RunState.STOPPED
    finally:
        signal.signal(signal.SIGINT, before)
    assert (root / "results/logs/first.a.log").read_text() == "saved\n"


def test_after_kill_9_the_run_is_dead_at_once_and_the_next_start_clears_up(root: Path) -> None:
    run = start(make_project(root, first=SAVES))
    wait_until((root / "at-work").exists)
    record = run.record()
    assert record is not None
    os.kill(record.pid, signal.SIGKILL)
    wait_until(lambda: current(root).state is RunState.DIED)  # type: ignore[union-attr]
    left = control.orphans(root)
    assert left
    assert all(os.getsid(each.pid) == record.pid for each in left)
    with pytest.raises(UserError, match=r"an earlier run was killed, but .* still work here: .*python \(pid \d+\)"):
        start(root)
    control.stop(root)
    wait_until(lambda: not control.orphans(root))
    assert control.is_locked_by_snakemake(root)
    make_project(root)
    assert ended(start(root)).state is RunState.FINISHED


def test_a_lock_that_a_killed_run_left_is_explained(tmp_path: Path) -> None:
    root = tmp_path / "a b"
    locks = root / ".snakemake" / "locks"
    locks.mkdir(parents=True)
    assert control.note_on_lock(root) == ""
    (locks / "0.output.lock").touch()
    assert f"`hv15 run '{root}'` removes it" in control.note_on_lock(root)
    held = lock.take(root, "alive")
    assert held is not None
    assert control.note_on_lock(root) == ""
    os.close(held)


def test_a_run_whose_record_cannot_be_written_does_not_stay(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk: nobody could find it, and so nobody could stop it."""
    pids: list[int] = []

    def full(self: RunFolder, pid: int, *_: object) -> None:
        pids.append(pid)
        raise UserError("run.json: cannot be written: No space left on device")

    monkeypatch.setattr(RunFolder, "write_record", full)
    with pytest.raises(UserError, match="No space left"):
        start(make_project(root, first=SAVES))
    wait_until(lambda: lock.holder(root) is None)
    assert not psutil.pid_exists(pids[0])


@pytest.mark.slow
def test_a_kill_leaves_no_process(root: Path) -> None:
    """A single command that is killed is in test_single.py, and Snakemake's lock in the test of kill -9."""
    run = start(make_project(root, first=SAVES))
    wait_until((root / "at-work").exists)
    processes = run_processes(run.record())  # type: ignore[arg-type]
    control.stop(root, now=True)
    assert ended(run).state is RunState.STOPPED
    psutil.wait_procs(processes, timeout=60)
    assert not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in processes)
    assert control.unlock(root)
    assert not control.is_locked_by_snakemake(root)
    assert not control.unlock(root)


@pytest.mark.slow
def test_a_failed_job_is_named_with_its_log(root: Path) -> None:
    """One of hv15's own commands is in test_failures.py."""
    done = ended(start(make_project(root, second=FAILS)))
    assert (done.state, done.done, len(done.failed)) == (RunState.FAILED, 1, 1)
    [failed] = events(done.run, JobFailed)
    assert failed.job.log == ("results/logs/second.log",)
    assert failed.failure is None, "a foreign program leaves no record"


@pytest.mark.slow
def test_a_broken_config_ends_with_its_message(root: Path) -> None:
    """A plan that is refused is in test_failures.py."""
    make_project(root)
    (root / "Snakefile").write_text(
        "from hv15.runs.events import record_events\nrecord_events(workflow)\n"
        "from snakemake.exceptions import WorkflowError\nraise WorkflowError('config.yaml:3:1 train: is wrong')\n"
    )
    done = ended(start(root))
    assert done.state is RunState.FAILED
    assert "config.yaml:3:1 train: is wrong" in done.reason


@pytest.mark.slow
def test_a_run_started_by_hand_is_seen_too(root: Path) -> None:
    make_project(root, first=SAVES)
    process = by_hand(root)
    wait_until(lambda: lock.holder(root))
    [run] = history(root)
    wait_until((root / "at-work").exists)
    found = current(root)
    assert found is not None
    assert found.record is not None
    assert (found.state, found.record.pid) == (RunState.RUNNING, process.pid)
    with pytest.raises(UserError, match="a run is already in progress"):
        start(root)
    control.stop(root)
    process.wait(timeout=60)
    assert ended(run).state is RunState.STOPPED


@pytest.mark.slow
def test_a_dry_run_leaves_no_trace(root: Path) -> None:
    """One of a project that has runs is in tests/workflow/test_staleness.py."""
    assert by_hand(make_project(root), "-n").wait(timeout=300) == 0
    assert not (root / ".hv15").exists()


def test_commands(root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "refuse_broken", lambda options: None)  # this project has another Snakefile and no clips
    make_project(root)
    assert cli.main(["status", str(root)]) == 0
    assert "no run yet" in capsys.readouterr().out
    assert cli.main(["stop", str(root)]) == USER_ERROR
    assert "no run is in progress" in capsys.readouterr().err
    assert cli.main(["run", str(root), "--target", "all", "--follow", "--snakemake", *CORES]) == 0
    assert "finished: 3 of 3 jobs" in capsys.readouterr().out
    metrics = ProjectPaths(root).metrics
    metrics.parent.mkdir()
    metrics.write_text(lines(step_record(3, loss=0.5, time=time.time())))
    assert cli.main(["status", str(root)]) == 0
    assert "training: step 3, loss 0.5000" in capsys.readouterr().out
    assert cli.main(["status", str(root), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["running"] is False
    assert said["run"]["state"] == "finished"
    assert said["run"]["jobs"] == {"done": 3, "total": 3, "failed": 0}
    assert said["training"]["step"] == 3
    assert cli.main(["run", str(root / "nowhere")]) == USER_ERROR
