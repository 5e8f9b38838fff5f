from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from hv15.atomic import write_json
from hv15.environment import RUN_VARIABLE
from hv15.records.events import JobDetails, JobDone, JobFailed, JobsCounted, JobsPlanned, RunEnded, RunRecord
from hv15.records.failures import Failure, FailureKind
from hv15.records.fields import to_json
from hv15.records.paths import ProjectPaths
from hv15.runs import control, lock, processes
from hv15.runs.followed_file import END, append_object
from hv15.runs.processes import main_process, run_processes
from hv15.runs.record import RunFolder, append_event, history, new_run
from hv15.runs.state import RunState, all_events, current, status
from tests.runs.project import detached


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run whose process is this one."""
    made = new_run(tmp_path)
    made.create(tmp_path / "config.yaml")
    made.write_record(os.getpid(), ["snakemake"], [])
    return made


def record(run: RunFolder) -> RunRecord:
    found = run.record()
    assert found is not None
    return found


def rewrite(run: RunFolder, **changes: object) -> None:
    write_json(run.record_file, to_json(replace(record(run), **changes)))  # type: ignore[arg-type]


def test_the_lock_has_one_holder_and_tells_who(tmp_path: Path) -> None:
    assert lock.holder(tmp_path) is None
    first = lock.take(tmp_path, "one")
    assert first is not None
    assert lock.holder(tmp_path) == "one"
    assert lock.take(tmp_path, "two", attempts=2) is None
    os.close(first)
    assert lock.holder(tmp_path) is None
    second = lock.take(tmp_path, "two", attempts=1)
    assert second is not None
    os.close(second)


def test_a_look_at_the_lock_does_not_refuse_a_start(tmp_path: Path) -> None:
    os.close(lock.take(tmp_path, "one") or -1)
    with (tmp_path / ".hv15" / "run.lock").open() as looker:
        fcntl.flock(looker, fcntl.LOCK_SH)
        assert lock.take(tmp_path, "two", attempts=2) is None
    taken = lock.take(tmp_path, "two", attempts=2)
    assert taken is not None
    os.close(taken)


def test_the_lock_decides_not_the_files(run: RunFolder) -> None:
    append_event(run.events, JobsCounted(done=1, total=3))
    assert status(run, run.id).state is RunState.RUNNING
    assert status(run, None).state is RunState.DIED
    assert status(run, "another").state is RunState.DIED
    assert (status(run, run.id).done, status(run, run.id).total) == (1, 3)


def test_jobs_are_counted_before_the_first_is_done(run: RunFolder) -> None:
    """The first one may be a training of hours."""
    assert (status(run, run.id).done, status(run, run.id).total) == (0, 0)
    append_event(run.events, JobsPlanned(jobs=(), total=3))
    assert (status(run, run.id).done, status(run, run.id).total) == (0, 3)


def test_another_machine_is_judged_by_what_it_writes(run: RunFolder) -> None:
    rewrite(run, host="elsewhere.example")
    append_event(run.events, JobsPlanned(jobs=(), total=3))
    assert status(run, None).state is RunState.ELSEWHERE
    assert run_processes(record(run)) == []
    os.utime(run.events, (time.time() + 3600,) * 2)  # its clock is ahead
    assert status(run, None).reason.endswith("wrote something 0 s ago")
    for path in run.path.iterdir():
        os.utime(path, (time.time() - 3600,) * 2)
    dead = status(run, None)
    assert dead.state is RunState.DIED
    assert "elsewhere.example" in dead.reason


def test_a_restart_of_the_machine_is_told(run: RunFolder) -> None:
    rewrite(run, boot_time=psutil.boot_time() - 5000, started=psutil.boot_time() - 4000)
    assert status(run, None).reason == "the machine was restarted"


def test_a_pid_used_anew_is_not_the_run(run: RunFolder) -> None:
    assert main_process(record(run)) is not None
    rewrite(run, create_time=record(run).create_time - 100)
    assert main_process(record(run)) is None
    assert record(run).host == socket.gethostname()


STOPPED = Failure("it was asked to stop", "start again", FailureKind.STOPPED, saved_step=812)
ONE_FAILED = RunEnded(done=1, total=3, failed=(2,), error="WorkflowError")


@pytest.mark.parametrize(
    ("end", "state", "words"),
    [
        (RunEnded(done=3, total=3), RunState.FINISHED, ""),
        (RunEnded(done=0, total=0), RunState.FINISHED, "nothing to do"),
        (ONE_FAILED, RunState.FAILED, "1 job failed"),
        (RunEnded(done=0, total=0, error="WorkflowError:\nconfig.yaml:3: x"), RunState.FAILED, "config.yaml"),
        (replace(ONE_FAILED, signal="SIGINT"), RunState.STOPPED, "by Ctrl-C"),
        (replace(ONE_FAILED, signal="SIGTERM"), RunState.STOPPED, "by SIGTERM"),
        (replace(ONE_FAILED, signal="SIGHUP"), RunState.STOPPED, "its terminal was closed"),
    ],
)
def test_endings(run: RunFolder, end: RunEnded, state: RunState, words: str) -> None:
    append_event(run.events, end)
    found = status(run, None)
    assert found.state is state
    assert words in found.reason


def test_a_stopped_training_tells_the_step_that_it_saved(run: RunFolder) -> None:
    append_event(run.events, JobFailed(job=JobDetails(id=2, rule="train"), failure=STOPPED))
    append_event(run.events, replace(ONE_FAILED, signal="SIGINT"))
    found = status(run, None)
    assert found.reason == "by Ctrl-C; the training saved its state after step 812"
    assert found.as_json()["saved_step"] == 812


def test_a_job_that_was_asked_to_stop_is_no_failure_of_the_run(run: RunFolder) -> None:
    """Whoever asked it: a cluster, or a person by its number."""
    append_event(run.events, JobFailed(job=JobDetails(id=2, rule="train"), failure=STOPPED))
    append_event(run.events, ONE_FAILED)
    assert status(run, None).state is RunState.STOPPED
    bug = Failure("KeyError", "report it", FailureKind.BUG, place="loop.py:3")
    append_event(run.events, JobFailed(job=JobDetails(id=3, rule="sample_latents"), failure=bug))
    append_event(run.events, replace(ONE_FAILED, failed=(2, 3)))
    found = status(run, None)
    assert (found.state, found.reason) == (RunState.FAILED, "2 jobs failed")
    assert [each.failure for each in found.failed] == [STOPPED, bug]


def test_the_end_of_a_run_that_died_is_told_once_and_for_all(run: RunFolder) -> None:
    """Later writes of what it left behind, or of later runs' trainings, do not move it."""
    append_event(run.events, JobsCounted(done=1, total=3))
    metrics = ProjectPaths(run.root).metrics
    metrics.parent.mkdir(parents=True)
    for path, when in ((metrics, 2e9), (run.events, 1.9e9), (run.record_file, 1.9e9)):
        path.touch()
        os.utime(path, (when, when))
    first = status(run, None)
    assert (first.state, first.ended) == (RunState.DIED, 2e9)
    for path in (metrics, run.output, run.stop):
        path.touch()
        os.utime(path, (2.1e9, 2.1e9))
    run.stop.unlink()
    again = status(run, None)
    assert (again.ended, again.reason, again.state) == (first.ended, first.reason, first.state)


@pytest.mark.parametrize(("now", "reason"), [(False, "on request"), (True, "killed on request")])
def test_a_run_that_is_stopped_before_it_records_anything(run: RunFolder, now: bool, reason: str) -> None:
    append_object(run.stop, {"time": time.time(), "now": now})
    assert (status(run, None).state, status(run, None).reason) == (RunState.STOPPED, reason)


def test_a_run_that_begins_while_it_is_looked_at_is_not_dead(run: RunFolder) -> None:
    descriptor = lock.take(run.root, run.id)
    assert descriptor is not None
    assert status(run, None).state is RunState.STARTING
    assert not run.events.exists(), "no death was written down"
    os.close(descriptor)


def test_numbers_of_a_later_run_are_no_sign_of_life(run: RunFolder) -> None:
    metrics = ProjectPaths(run.root).metrics
    metrics.parent.mkdir(parents=True)
    metrics.touch()
    os.utime(metrics, (2e9, 2e9))
    RunFolder(run.root, "99991231-000000-aaaa").path.mkdir(parents=True)
    found = status(run, None)
    assert found.ended is not None
    assert found.ended < 2e9


def test_a_run_that_said_nothing_at_all_is_not_called_killed(run: RunFolder) -> None:
    assert "its output says why" in status(run, None).reason


def test_a_run_whose_options_snakemake_refused_says_which(run: RunFolder) -> None:
    run.output.write_text("usage: snakemake [-h]\n [targets ...]\nsnakemake: error: argument -e: invalid choice: 'x'\n")
    assert "planned anything: snakemake: argument -e: invalid choice: 'x'" in status(run, None).reason


def test_a_record_of_a_later_version_is_named(run: RunFolder) -> None:
    write_json(run.record_file, to_json(record(run)) | {"version": 99})
    append_event(run.events, JobsCounted(done=1, total=3))
    found = status(run, None)
    assert (found.state, found.reason) == (
        RunState.UNREADABLE,
        "run.json is of version 99, but this hv15 understands only versions up to 1",
    )
    assert status(run, run.id).state is RunState.RUNNING


def test_damaged_files_are_passed_over(run: RunFolder) -> None:
    append_event(run.events, JobsCounted(done=2, total=4))
    with run.events.open("ab") as file:
        file.write(b'\xff\xfe{"event"\n[]\n"x"\n{"event": 3}\n{"event": "progress", "done": "x"}\n{"ev')
    assert [type(event) for event in all_events(run.events)] == [JobsCounted]
    run.record_file.write_text('{"pid": 1')
    assert run.record() is None
    assert status(run, None).reason == "it left no record"
    run.record_file.write_text(json.dumps([1]))
    assert run.record() is None


def outlived(run: RunFolder) -> subprocess.Popen[bytes]:
    """A process that a run has left behind."""
    return detached("sleep", "100", environment={RUN_VARIABLE: run.id})


def test_a_process_is_found_as_soon_as_it_is_started(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a moment it shows no environment; one in ten is met in it when nobody else is looked at before."""
    rewrite(run, pid=2**22 - 1)
    for _ in range(100):
        left = outlived(run)
        monkeypatch.setattr(psutil, "process_iter", lambda pid=left.pid: [psutil.Process(pid)])
        try:
            assert [each.pid for each in run_processes(record(run))] == [left.pid]
        finally:
            left.kill()
            left.wait()


def test_a_process_without_environment_belongs_to_no_run(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is it waited for: it has words, which one that is just becoming a program has not."""
    rewrite(run, pid=2**22 - 1)
    other = subprocess.Popen(["sleep", "100"], env={})
    monkeypatch.setattr(psutil, "process_iter", lambda: [psutil.Process(other.pid)])
    monkeypatch.setattr(processes, "EXEC_S", 1e9)
    try:
        assert run_processes(record(run)) == []
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize("now", [False, True])
def test_what_a_dead_run_left_is_ended(run: RunFolder, now: bool) -> None:
    rewrite(run, pid=2**22 - 1)
    left = outlived(run)
    control.stop(run.root, now=now)
    left.wait(timeout=60)
    assert status(run, None).state is RunState.DIED, "how the run ended is no matter of what is done later"


@pytest.mark.parametrize("now", [False, True])
def test_what_an_earlier_run_left_is_ended_and_nothing_else(run: RunFolder, now: bool) -> None:
    """The number of the last run's process group belongs to another program by now."""
    left, other = outlived(run), detached("sleep", "100", environment={})
    try:
        last = RunFolder(run.root, "99991231-000000-aaaa")
        last.create(run.root / "config.yaml")
        last.write_record(other.pid, ["snakemake"], [])
        rewrite(run, pid=2**22 - 1)
        rewrite(last, create_time=1.0, leads_group=True)
        append_event(last.events, RunEnded(done=1, total=3, failed=(2,)))
        control.stop(run.root, now=now)
        left.wait(timeout=60)
        assert other.poll() is None
        assert status(last, None).state is RunState.FAILED
    finally:
        other.kill()
        other.wait()


def test_a_job_that_failed_twice_counts_once(run: RunFolder) -> None:
    for number in (2, 2, 3):
        append_event(run.events, JobFailed(job=JobDetails(id=number, rule="train")))
    assert len(status(run, run.id).failed) == 2


def test_a_failure_is_told_however_much_has_run_since(run: RunFolder) -> None:
    """With `keep-going`, what does not depend on a failed job still runs: in a sweep, hundreds of jobs."""
    failure = Failure("a caption is missing", "write it", FailureKind.USER)
    append_event(run.events, JobFailed(job=JobDetails(id=1, rule="train"), failure=failure))
    append_event(run.events, JobFailed(job=JobDetails(id=2, rule="convert")))
    append_event(run.events, JobDone(id=2))
    with run.events.open("a", encoding="utf-8") as file:
        file.write((json.dumps({"event": "done", "id": 3}) + "\n") * (2 * END // 20))
    append_event(run.events, RunEnded(done=1, total=2, failed=(1,)))
    assert [(each.job.rule, each.failure) for each in status(run, None).failed] == [("train", failure)]


def test_history_is_newest_first(tmp_path: Path) -> None:
    assert history(tmp_path) == []
    assert current(tmp_path) is None
    for name in ("20260101-000000-aaaa", "20260301-000000-aaaa", "20260201-000000-aaaa"):
        RunFolder(tmp_path, name).path.mkdir(parents=True)
    assert [run.id[:6] for run in history(tmp_path)] == ["202603", "202602", "202601"]


def test_a_run_is_the_newest_though_its_clock_is_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after one on a machine whose clock is ahead: a container's is often that of another time zone."""
    try:
        made = []
        for zone in ("UTC", "XXX+2", "XXX-2", "UTC"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            made.append(new_run(tmp_path))
            made[-1].path.mkdir(parents=True)
        assert history(tmp_path) == made[::-1]
    finally:
        monkeypatch.undo()
        time.tzset()
