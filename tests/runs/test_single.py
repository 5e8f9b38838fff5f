"""One command as a run: it is recorded, stopped and explained as the workflow is."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from hv15.errors import UserError
from hv15.records.events import JobFailed, JobStarted
from hv15.records.failures import FailureKind
from hv15.runs import control, lock
from hv15.runs.processes import in_words, kill, run_processes, send
from hv15.runs.record import RunFolder, history
from hv15.runs.state import RunState, RunStatus, all_events, status
from tests.runs.project import wait_until

LONG = ("sample", "--project", "config.yaml", "--", "a red circle", "a blue circle")
"""Works for some seconds at least, since it has to load a model."""


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "config.yaml").write_text("task: t2v\nmodels: {source: demo}\n")
    yield tmp_path
    for run in history(tmp_path):
        if record := run.record():
            kill(record)


def ended(run: RunFolder) -> RunStatus:
    wait_until(lambda: lock.holder(run.root) is None)
    return status(run, None)


def at_work(run: RunFolder) -> bool:
    """Whether the command is a process of its own by now."""
    record = run.record()
    return record is not None and "hv15 sample" in in_words(run_processes(record))


def test_it_goes_to_its_end(root: Path) -> None:
    run = control.start_command(root, "red: seed 5", ["status", "."])
    done = ended(run)
    assert (done.state, done.done, done.total, done.failed) == (RunState.FINISHED, 1, 1, ())
    [job] = [event.job for event in all_events(run.events) if isinstance(event, JobStarted)]
    assert job.name == "status red: seed 5"
    assert (root / job.log[0]) == run.output
    assert f"{run.id}: running" in run.output.read_text(), "it sees itself as the run"
    assert run.config.read_text() == (root / "config.yaml").read_text()
    record = run.record()
    assert record is not None
    assert record.targets == ("red: seed 5",)


def test_a_failure_has_its_cause_and_cure(root: Path) -> None:
    run = control.start_command(root, "-x", ["show", "nothing.safetensors"])
    failed = ended(run)
    assert failed.state is RunState.FAILED
    [job] = failed.failed
    assert job.failure is not None
    assert "nothing.safetensors" in job.failure.place + job.failure.cause
    assert job.failure.kind is FailureKind.USER


@pytest.mark.parametrize("how", ["stop", pytest.param("SIGTERM", marks=pytest.mark.slow)])
def test_it_is_stopped_with_its_command(root: Path, how: str) -> None:
    run = control.start_command(root, "red", LONG)
    wait_until(lambda: at_work(run))
    with pytest.raises(UserError, match="already in progress"):
        control.start_command(root, "blue", LONG)
    record = run.record()
    assert record is not None
    if how == "stop":
        control.stop(root)
    else:
        send([each for each in run_processes(record) if each.pid == record.pid], signal.SIGTERM)
    stopped = ended(run)
    assert stopped.state is RunState.STOPPED
    assert [event.job.id for event in all_events(run.events) if isinstance(event, JobFailed)] == [1]
    wait_until(lambda: not run_processes(record))


def test_killed_it_is_found_dead(root: Path) -> None:
    run = control.start_command(root, "red", LONG)
    wait_until(lambda: at_work(run))
    control.stop(root, now=True)
    dead = ended(run)
    assert (dead.state, dead.reason) == (RunState.STOPPED, "killed on request")
