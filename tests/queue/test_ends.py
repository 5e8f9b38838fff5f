"""What becomes of a project when its run is over, as its files say."""

from __future__ import annotations

from pathlib import Path

import pytest

from hv15.queue import ends
from hv15.queue.ends import End, end_of
from hv15.records.events import JobDetails, JobFailed, RecordingStarted, RunEnded
from hv15.records.failures import Failure, FailureKind
from hv15.records.queue import QueuedProject, QueuedState
from hv15.runs import control
from tests.queue.made_up import DONE, project, record_run, run_by_hand

FAILED = (
    JobFailed(
        job=JobDetails(id=1, rule="train", message="Training"),
        failure=Failure("the GPU ran out of memory", "set blocks_to_swap", FailureKind.MEMORY),
    ),
    RunEnded(done=0, total=2, failed=(1,)),
)


@pytest.fixture
def running(tmp_path: Path) -> QueuedProject:
    return project(1, tmp_path, QueuedState.RUNNING, run="r", started=1.0)


def state(running: QueuedProject, *, after_gap: bool = False) -> QueuedState | None:
    end = end_of(running, {}, after_gap=after_gap)
    return None if end is None else end.state


def test_a_run_that_is_alive_goes_on(running: QueuedProject) -> None:
    with run_by_hand(running.root, "r"):
        assert end_of(running, {}) is None
        assert end_of(running, {}, after_gap=True) is None


def test_a_run_that_has_just_begun_goes_on(running: QueuedProject) -> None:
    """It holds the lock, and has not written its id yet."""
    with run_by_hand(running.root, ""):
        assert end_of(running, {}) is None


@pytest.mark.parametrize("after_gap", [False, True])
def test_done(running: QueuedProject, *, after_gap: bool) -> None:
    run = record_run(running.root, "r", DONE)
    end = end_of(running, {}, after_gap=after_gap)
    assert end is not None
    assert (end.state, end.time) == (QueuedState.DONE, DONE.time)
    with run_by_hand(running.root):
        assert state(running) is QueuedState.DONE, "whatever somebody does there since"
    assert run.path.is_dir()


@pytest.mark.parametrize("after_gap", [False, True])
def test_failed_with_cause_and_cure(running: QueuedProject, *, after_gap: bool) -> None:
    record_run(running.root, "r", *FAILED)
    end = end_of(running, {}, after_gap=after_gap)
    assert end is not None
    assert end.state is QueuedState.FAILED
    assert "the GPU ran out of memory" in end.reason
    assert end.cure == "set blocks_to_swap"


def test_a_plan_that_failed(running: QueuedProject) -> None:
    ended = RunEnded(done=0, total=2, failure=Failure("no clip", "add one", FailureKind.USER))
    record_run(running.root, "r", ended)
    assert end_of(running, {}) == End(QueuedState.FAILED, "no clip", "add one", ended.time)


def test_stopped_on_request(running: QueuedProject) -> None:
    run = record_run(running.root, "r", RunEnded(done=0, total=2, failed=(1,)))
    run.stop.touch()
    assert state(running) is QueuedState.STOPPED
    assert state(running, after_gap=True) is QueuedState.STOPPED, "nobody wanted it to continue"


def test_a_run_that_was_killed_has_failed_if_it_was_watched(running: QueuedProject) -> None:
    record_run(running.root, "r")
    assert state(running) is QueuedState.FAILED


def test_a_run_that_died_while_nobody_watched_is_run_again(running: QueuedProject) -> None:
    record_run(running.root, "r", RecordingStarted())
    end = end_of(running, {}, after_gap=True)
    assert end is not None
    assert end.state is QueuedState.WAITING
    assert "killed from outside" in end.reason


@pytest.mark.parametrize(
    "events",
    [(), (RunEnded(done=0, total=2, failed=(1,), signal="SIGTERM"),), FAILED],
    ids=["no word", "shut down", "a job ended first"],
)
def test_after_a_restart_of_the_machine_it_is_run_again(running: QueuedProject, events: tuple[RunEnded, ...]) -> None:
    record_run(running.root, "r", *events, restarted=True)
    assert state(running, after_gap=True) is QueuedState.WAITING


def test_a_run_that_was_never_started_is_run_again(running: QueuedProject) -> None:
    assert state(running) is QueuedState.WAITING
    assert state(running, after_gap=True) is QueuedState.WAITING


def test_what_a_killed_run_left_is_asked_once_to_end(running: QueuedProject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice would mean: without saving."""
    record_run(running.root, "r")
    asked: list[bool] = []
    left = ["a training"]
    monkeypatch.setattr(control, "orphans", lambda root: left)
    monkeypatch.setattr(control, "end_orphans", lambda root, now=False: asked.append(now))
    since: dict[str, float] = {}
    for _ in range(3):
        assert end_of(running, since) is None
    assert asked == [False]
    monkeypatch.setattr(ends, "PATIENCE_S", -1.0)
    assert end_of(running, since) is None
    assert asked == [False, True]
    left.clear()
    assert end_of(running, since) is not None
