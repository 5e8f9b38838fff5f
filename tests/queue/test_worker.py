"""The worker, step by step, with runs that are made up."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from hv15.environment import NEW_RUN_VARIABLE
from hv15.errors import UserError
from hv15.gpus import VISIBLE
from hv15.own_files import text_if_locked
from hv15.queue import changes, queue_file, worker
from hv15.queue.queue_file import QueueFile
from hv15.queue.worker import Worker, take_worker_lock
from hv15.records.queue import QueuedProject, QueuedState
from hv15.runs import control
from hv15.runs.record import RunFolder, append_event
from tests.queue.made_up import DONE, keep, project, queue, record_run, run_by_hand, states


@dataclass
class Runs:
    """Stands for `hv15 run`: records the run that it starts, which is over at once."""

    started: list[tuple[str, dict[str, str | None], Sequence[str]]] = field(default_factory=list)
    refusal: Callable[[Path], None] = lambda root: None

    def start(self, words: Sequence[str], folder: Path, *, variables: dict[str, str | None], **_: Any) -> str:
        assert words[0] == "run"
        root = Path(words[1]).parent
        self.started.append((root.name, variables, words[2:]))
        self.refusal(root)
        run_id = variables[NEW_RUN_VARIABLE]
        assert run_id
        record_run(root, run_id, DONE)
        return ""

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.started]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    found = Runs()
    monkeypatch.setattr(worker, "run_command", found.start)
    return found


@pytest.fixture
def file(tmp_path: Path) -> QueueFile:
    return QueueFile(tmp_path / "state")


def at_work(file: QueueFile) -> Worker:
    file.folder.mkdir(exist_ok=True)
    descriptor = take_worker_lock(file)
    assert descriptor is not None
    return Worker(file, descriptor)


def of(tmp_path: Path, *names: str, **more: Any) -> tuple[QueuedProject, ...]:
    return tuple(project(number, tmp_path / name, **more) for number, name in enumerate(names, start=1))


def test_one_after_the_other_until_nothing_is_left(file: QueueFile, runs: Runs, tmp_path: Path) -> None:
    keep(file, queue(*of(tmp_path, "a", "b", targets=("samples",), snakemake=("--cores", "1"))))
    working = at_work(file)
    seen = []
    while working.step():
        seen.append(states(file.read()))
    assert seen == [{1: "running", 2: "waiting"}, {1: "done", 2: "running"}]
    assert states(file.read()) == {1: "done", 2: "done"}
    assert runs.names == ["a", "b"]
    assert runs.started[0][2] == ["--target=samples", "--snakemake", "--cores", "1"]
    assert text_if_locked(file.worker_lock) is None, "it is free before somebody can add more"
    assert file.worker_lock.read_text() == ""


def test_the_id_of_a_run_is_known_before_it_is_started(file: QueueFile, runs: Runs, tmp_path: Path) -> None:
    keep(file, queue(*of(tmp_path, "a")))
    known = []
    runs.refusal = lambda root: known.extend(file.read().running)
    at_work(file).step()
    assert [each.run for each in known] == [runs.started[0][1][NEW_RUN_VARIABLE]]


def test_a_refusal_is_the_end_of_that_project_alone(file: QueueFile, runs: Runs, tmp_path: Path) -> None:
    def refuse(root: Path) -> None:
        if root.name == "a":
            raise UserError("clips: is gone", hint="bring it back")

    runs.refusal = refuse
    keep(file, queue(*of(tmp_path, "a", "b")))
    working = at_work(file)
    while working.step():
        pass
    first, second = file.read().projects
    assert (first.state, first.reason, first.cure) == (QueuedState.FAILED, "clips: is gone", "bring it back")
    assert second.state is QueuedState.DONE


def test_a_project_that_somebody_starts_at_the_same_moment_waits(file: QueueFile, runs: Runs, tmp_path: Path) -> None:
    keep(file, queue(*of(tmp_path, "a")))
    working = at_work(file)

    def refuse(root: Path) -> None:
        raise UserError("a run is already in progress")

    runs.refusal = refuse
    held = run_by_hand(tmp_path / "a")
    original = worker.next_project  # it looks before the other one begins
    calls: list[object] = []

    def look(found: Any) -> Any:
        choice = original(found)
        calls.append(choice)
        if len(calls) == 2:
            held.__enter__()
        return choice

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "next_project", look)
        assert working.step()
    assert states(file.read()) == {1: "waiting"}
    assert working.step(), "it waits for the other's end"
    assert runs.names == ["a"]
    held.__exit__(None, None, None)
    runs.refusal = lambda root: None
    assert working.step()
    assert not working.step()
    assert runs.names == ["a", "a"]


def test_nothing_is_started_while_paused_and_the_worker_ends(file: QueueFile, runs: Runs, tmp_path: Path) -> None:
    keep(file, queue(*of(tmp_path, "a"), paused=True))
    assert not at_work(file).step()
    assert runs.started == []


def test_what_was_stopped_to_continue_later_waits_first(file: QueueFile, runs: Runs, tmp_path: Path) -> None:
    one = project(1, tmp_path / "a", QueuedState.RUNNING, run="r", started=1.0, again=True)
    run = record_run(tmp_path / "a", "r", replace(DONE, done=0, signal="SIGINT"))
    run.stop.touch()
    keep(file, queue(one, project(2, tmp_path / "b"), paused=True))
    assert not at_work(file).step()
    found = file.read()
    assert states(found) == {1: "waiting", 2: "waiting"}
    assert (found.waiting[0].again, found.waiting[0].reason) == (
        False,
        "was stopped (on request): continues from there",
    )
    keep(file, replace(found, paused=False))
    at_work(file).step()
    assert runs.names == ["a"]


def test_a_project_that_begins_while_all_is_stopped_is_stopped_too(
    file: QueueFile, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[Path] = []
    monkeypatch.setattr(control, "stop", stopped.append)
    keep(file, queue(*of(tmp_path, "a")))

    def pause(root: Path) -> None:
        found = file.read()
        keep(file, replace(found, paused=True, projects=(replace(found.projects[0], again=True),)))

    runs.refusal = pause
    at_work(file).step()
    assert stopped == [tmp_path / "a"]


def test_a_worker_finds_the_runs_of_one_that_was_killed(file: QueueFile, runs: Runs, tmp_path: Path) -> None:
    """One is alive, one has finished meanwhile, and one was recorded, but not started any more."""
    entries = [
        project(n, tmp_path / name, QueuedState.RUNNING, run=name, started=1.0) for n, name in enumerate("abc", 1)
    ]
    record_run(tmp_path / "b", "b", DONE)
    keep(file, queue(*entries, at_once=3))
    working = at_work(file)
    with run_by_hand(tmp_path / "a", "a"):
        assert working.step()
        assert states(file.read()) == {1: "running", 2: "done", 3: "running"}
        assert runs.names == ["c"]
    record_run(tmp_path / "a", "a", DONE)
    assert not working.step()
    assert states(file.read()) == {1: "done", 2: "done", 3: "done"}
    assert runs.names == ["c"]


@pytest.mark.parametrize("trouble", ["processes are left", "the disk is full"])
def test_a_run_that_died_with_its_worker_is_run_again_though_that_takes_a_while(
    file: QueueFile, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    record_run(tmp_path / "a", "a")
    keep(file, queue(project(1, tmp_path / "a", QueuedState.RUNNING, run="a", started=1.0)))
    working = at_work(file)
    with monkeypatch.context() as now:
        if trouble == "processes are left":
            now.setattr(control, "orphans", lambda root: [psutil.Process()])
            now.setattr(control, "end_orphans", lambda root, now=False: None)
            assert working.step()
        else:
            now.setattr(queue_file, "write_json", full_disk)
            with pytest.raises(UserError):
                working.step()
    while working.step():
        pass
    assert (runs.names, states(file.read())) == (["a"], {1: "done"})


def test_a_run_that_dies_while_it_is_watched_has_failed(file: QueueFile, runs: Runs, tmp_path: Path) -> None:
    record_run(tmp_path / "a", "a")
    keep(file, queue(project(1, tmp_path / "a", QueuedState.RUNNING, run="a", started=1.0)))
    working = at_work(file)
    with run_by_hand(tmp_path / "a", "a"):
        assert working.step()
    assert not working.step()
    assert (runs.names, states(file.read())) == ([], {1: "failed"})


def full_disk(*_: object) -> None:
    raise UserError("queue.json: cannot be written: No space left on device")


def test_each_gets_the_gpus_that_it_was_added_with(
    file: QueueFile, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VISIBLE, "7")
    one, two = of(tmp_path, "a", "b")
    keep(file, queue(replace(one, visible="GPU-x,GPU-y"), two))
    working = at_work(file)
    while working.step():
        pass
    assert [variables[VISIBLE] for _, variables, _ in runs.started] == ["GPU-x,GPU-y", None]
    keep(file, queue(*of(tmp_path, "c", "d", visible="GPU-x,GPU-y"), per_device=True))
    working = at_work(file)
    while working.step():
        pass
    assert [variables[VISIBLE] for _, variables, _ in runs.started[2:]] == ["GPU-x", "GPU-x"]
    assert file.read().projects[0].devices == ("GPU-x",)


def test_what_is_added_at_the_last_moment_is_not_forgotten(file: QueueFile, runs: Runs, tmp_path: Path) -> None:
    """Either this worker sees it, or whoever adds it sees that there is none."""
    keep(file, queue(*of(tmp_path, "a")))
    working = at_work(file)
    working.step()
    last_look = working._has_work_at_last

    def added_before() -> bool:
        file.change(lambda found: changes.add(found, [project(root=tmp_path / "b")]))
        return last_look()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(working, "_has_work_at_last", added_before)
        assert working.step()
    assert text_if_locked(file.worker_lock) == str(os.getpid())
    while working.step():
        pass
    assert runs.names == ["a", "b"]


def test_only_one_worker_lives(file: QueueFile) -> None:
    file.folder.mkdir()
    held = take_worker_lock(file)
    assert held is not None
    assert take_worker_lock(file) is None
    os.close(held)
    again = take_worker_lock(file)
    assert again is not None
    os.close(again)


def test_a_start_that_outlives_its_worker_is_waited_for(file: QueueFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker was killed while `hv15 run` was at work for it, which keeps the lock."""
    file.folder.mkdir()
    file.worker_lock.write_text(str(2**22 + 1))
    starter = os.open(file.worker_lock, os.O_RDWR)
    fcntl.flock(starter, fcntl.LOCK_EX)
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            os.close(starter)

    monkeypatch.setattr(worker.time, "sleep", sleep)
    descriptor = take_worker_lock(file)
    assert descriptor is not None
    assert len(waited) == 3
    os.close(descriptor)


def test_a_full_disk_is_told_and_tried_again(
    file: QueueFile, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(file, queue(*of(tmp_path, "a")))
    monkeypatch.setattr(worker.time, "sleep", lambda _: None)
    errors = [UserError("queue.json: cannot be written: No space left on device")]
    original = Worker._begin_next

    def full(self: Worker) -> QueuedProject | None:
        if errors:
            raise errors.pop()
        return original(self)

    monkeypatch.setattr(Worker, "_begin_next", full)
    assert worker.main(file.folder) == 0
    assert "No space left" in capsys.readouterr().out
    assert states(file.read()) == {1: "done"}


def test_a_run_that_goes_on_holds_the_others_up(file: QueueFile, runs: Runs, tmp_path: Path) -> None:
    running, waiting = project(1, tmp_path / "a", QueuedState.RUNNING, run="r"), project(2, tmp_path / "b")
    keep(file, queue(running, waiting))
    working = at_work(file)
    with run_by_hand(tmp_path / "a", "r"):
        for _ in range(3):
            assert working.step()
        assert runs.started == []
    append_event(record_run(tmp_path / "a", "r").events, DONE)
    assert RunFolder(tmp_path / "a", "r").events.exists()
    assert working.step()
    assert runs.names == ["b"]
