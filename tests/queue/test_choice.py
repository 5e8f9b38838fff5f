"""Which project comes next, and on which GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hv15 import gpus
from hv15.queue.choice import next_project
from hv15.records.queue import Queue, QueuedProject, QueuedState
from tests.queue.made_up import project, queue, run_by_hand

RUNNING = QueuedState.RUNNING


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """GPUs are locked in a folder of the test, and three are installed."""
    monkeypatch.setattr(gpus.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(gpus, "_installed", lambda: ["GPU-a", "GPU-b", "GPU-c"])
    monkeypatch.setattr(gpus, "_held", [])
    yield
    for descriptor in gpus.held_locks():
        gpus.os.close(descriptor)


def chosen(*projects: QueuedProject, **more: object) -> tuple[int, tuple[str, ...]] | None:
    choice = next_project(queue(*projects, **more))
    return None if choice is None else (choice.project.number, choice.devices)


def test_one_after_the_other() -> None:
    assert chosen() is None
    assert chosen(project(1, state=QueuedState.DONE), project(2), project(3)) == (2, ())
    assert chosen(project(1, state=RUNNING), project(2)) is None


def test_several_at_once_and_none_while_paused() -> None:
    assert chosen(project(1, state=RUNNING), project(2), at_once=2) == (2, ())
    assert chosen(project(1, state=RUNNING), project(2, state=RUNNING), project(3), at_once=2) is None
    assert chosen(project(1), paused=True) is None


def test_a_project_that_runs_by_hand_is_waited_for(tmp_path: Path) -> None:
    one, two = project(1, tmp_path / "one"), project(2, tmp_path / "two")
    with run_by_hand(tmp_path / "one"):
        assert chosen(one, two) is None, "it holds its place"
        assert chosen(one, two, at_once=2) == (2, ())
        assert chosen(two, one) == (2, ()), "its turn has not come"
    assert chosen(one, two) == (1, ())


def test_two_requests_of_one_project_never_run_at_the_same_time() -> None:
    running = project(1, "/a", RUNNING)
    assert chosen(running, project(2, "/a"), project(3, "/b"), at_once=3) == (3, ())
    assert chosen(running, project(2, "/a"), at_once=3) is None


def per_device(*projects: QueuedProject) -> tuple[int, tuple[str, ...]] | None:
    return chosen(*projects, per_device=True)


def test_one_on_each_gpu() -> None:
    assert per_device(project(1), project(2)) == (1, ("GPU-a",))
    assert per_device(project(1, state=RUNNING, devices=("GPU-a",)), project(2)) == (2, ("GPU-b",))
    full = [project(n, state=RUNNING, devices=(f"GPU-{name}",)) for n, name in enumerate("abc", start=1)]
    assert per_device(*full, project(4)) is None


def test_a_gpu_on_which_another_job_works_is_left_alone() -> None:
    assert gpus._lock("GPU-a")
    assert per_device(project(1)) == (1, ("GPU-b",))
    assert gpus._lock("GPU-b")
    assert gpus._lock("GPU-c")
    assert per_device(project(1)) is None


def test_a_project_may_need_several_and_is_not_overtaken() -> None:
    one = project(1, state=RUNNING, devices=("GPU-a",))
    assert per_device(one, project(2, gpus=2)) == (2, ("GPU-b", "GPU-c"))
    two = project(2, state=RUNNING, devices=("GPU-b",))
    assert per_device(one, two, project(3, gpus=2), project(4)) is None
    assert per_device(project(1, gpus=8)) == (1, ("GPU-a", "GPU-b", "GPU-c")), "its job says that they are too few"


def test_only_the_gpus_that_were_visible_when_it_was_added() -> None:
    assert per_device(project(1, visible="GPU-c,GPU-b")) == (1, ("GPU-c",))
    assert per_device(project(1, state=RUNNING, devices=("GPU-c",)), project(2, visible="GPU-c")) is None


def test_without_gpus_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "_installed", list)
    assert per_device(project(1), project(2)) == (1, ())
    assert per_device(project(1, state=RUNNING), project(2)) is None


def test_a_project_that_has_all_gpus_is_waited_for() -> None:
    assert per_device(project(1, state=RUNNING), project(2)) is None


def test_a_paused_queue_with_nothing_running_has_no_work() -> None:
    assert Queue().has_work is False
    assert queue(project(1), paused=True).has_work is False
    assert queue(project(1)).has_work
    assert queue(project(1, state=RUNNING), paused=True).has_work
