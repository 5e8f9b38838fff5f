"""The worker as a real process: it survives a logout, and after kill -9 the next one continues."""

from __future__ import annotations

import fcntl
import os
import pty
import shlex
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hv15.gpus import VISIBLE
from hv15.queue import changes
from hv15.queue.begin import ensure_worker, worker_pid
from hv15.queue.queue_file import VARIABLE, QueueFile
from hv15.runs import control, lock
from hv15.runs.processes import kill
from hv15.runs.record import history
from tests.commands.workbench import hv15
from tests.queue.made_up import keep, project, queue, run_by_hand, states
from tests.runs.project import FAILS, SAVES, make_project, wait_until

OPTIONS = ("--target", "all", "--snakemake", "--cores", "1", "--config", "some=1")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[QueueFile]:
    """A queue of the test; its worker, and whatever its runs left, are killed in the end."""
    found = QueueFile(tmp_path / "state")
    monkeypatch.setenv(VARIABLE, str(found.folder))
    yield found
    if (pid := worker_pid(found)) is not None:
        os.kill(pid, signal.SIGKILL)
    for root in {each.root for each in found.read().projects}:
        for run in history(root):
            if record := run.record():
                kill(record)


def lives(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not lives(pid))


def test_it_survives_a_hangup_is_started_again_after_a_kill_and_ends_by_itself(file: QueueFile, tmp_path: Path) -> None:
    keep(file, queue(project(1, tmp_path / "a")))
    with run_by_hand(tmp_path / "a"):
        pid = ensure_worker(file)
        assert pid is not None
        assert os.getsid(pid) == pid, "no terminal is its own"
        os.kill(pid, signal.SIGHUP)
        assert ensure_worker(file) == pid
        end(pid)
        assert worker_pid(file) is None
        again = ensure_worker(file)
        assert again not in (None, pid)
        file.change(lambda found: changes.remove(found, [1]))
        wait_until(lambda: worker_pid(file) is None)
        wait_until(lambda: "there is nothing to do" in file.worker_log.read_text())  # said without the lock
    assert ensure_worker(file) is None, "there is nothing to do"


def logged_in(*words: str) -> tuple[subprocess.Popen[bytes], int]:
    """Run a command in a shell on a terminal of its own; return both: when the second is closed, it hangs up."""
    master, slave = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    line = f"{shlex.join([sys.executable, '-m', 'hv15.cli', *words])}; echo is in; sleep 1000; true"
    shell = subprocess.Popen(
        ["sh", "-c", line], stdin=slave, stdout=slave, stderr=slave, preexec_fn=take_terminal, close_fds=True
    )
    os.close(slave)
    said = b""
    while b"is in" not in said:
        said += os.read(master, 1000)
    return shell, master


@pytest.mark.slow
def test_whole_queues_survive_logout_and_kills_and_run_each_project_once(file: QueueFile, tmp_path: Path) -> None:
    one = make_project(tmp_path / "one", first=SAVES)
    two, three = make_project(tmp_path / "two", second=FAILS), make_project(tmp_path / "three")
    shell, terminal = logged_in("queue", "add", *map(str, (one, two, three)), *OPTIONS)
    wait_until((one / "at-work").exists)
    pid = worker_pid(file)
    assert pid is not None
    os.close(terminal)
    wait_until(lambda: shell.poll() is not None)
    assert lives(pid)
    assert lock.holder(one) is not None
    end(pid)
    assert lock.holder(one) is not None, "the run does not depend on the worker"
    assert "running" in hv15("queue").out
    assert worker_pid(file) not in (None, pid)
    assert hv15("queue", "stop", "1").code == 0
    wait_until(lambda: worker_pid(file) is None)
    assert states(file.read()) == {1: "stopped", 2: "failed", 3: "done"}
    assert [len(history(each)) for each in (one, two, three)] == [1, 1, 1]
    assert (one / "results/logs/first.a.log").read_text() == "saved\n"
    said = hv15("queue").out
    assert "no such thing" in said
    assert "what to do" in said
    make_project(one)
    make_project(two)
    assert hv15("queue", "retry").code == 0
    wait_until(lambda: worker_pid(file) is None)
    assert set(states(file.read()).values()) == {"done"}


@pytest.mark.slow
def test_when_all_is_killed_the_project_that_ran_is_run_again(file: QueueFile, tmp_path: Path) -> None:
    """As after a power cut: of the worker, the run and its jobs, none is left, and none has said anything."""
    one = make_project(tmp_path / "one", first=SAVES)
    assert hv15("queue", "add", one, *OPTIONS).code == 0
    wait_until((one / "at-work").exists)
    pid = worker_pid(file)
    assert pid is not None
    end(pid)
    [run] = history(one)
    record = run.record()
    assert record is not None
    kill(record)
    assert not control.orphans(one)
    make_project(one)
    hv15("queue")
    wait_until(lambda: worker_pid(file) is None)
    assert states(file.read()) == {1: "done"}
    assert len(history(one)) == 2


@pytest.mark.slow
def test_two_projects_run_at_the_same_time_on_a_gpu_each(
    file: QueueFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits for what the other makes; the GPUs are only names."""
    monkeypatch.setenv(VISIBLE, "GPU-1,GPU-2")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    wait = "while [ ! -e ../{other}/results/a.txt ]; do sleep 0.1; done; echo made > {{output}}"
    roots = [
        make_project(tmp_path / name, first="echo $CUDA_VISIBLE_DEVICES > {output}", second=wait.format(other=other))
        for name, other in (("one", "two"), ("two", "one"))
    ]
    assert hv15("queue", "add", *roots, "--per-device", *OPTIONS).code == 0
    wait_until(lambda: worker_pid(file) is None)
    assert states(file.read()) == {1: "done", 2: "done"}
    assert [(root / "results/a.txt").read_text() for root in roots] == ["GPU-1\n", "GPU-2\n"]
