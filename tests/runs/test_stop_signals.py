"""What asks a run to stop is told afterwards: Ctrl-C, a closed terminal, SIGTERM; and nothing is called a failure."""

from __future__ import annotations

import os
import pty
import shlex
import signal
import sys
from pathlib import Path

import pytest

from hv15 import cli
from hv15.runs import lock
from hv15.runs.record import RunFolder, history
from hv15.runs.state import RunState, RunStatus, status
from tests.runs.project import by_hand, make_project, wait_until
from tui.data.jobs import JobState
from tui.data.system import ScriptedGpus
from tui.project_files import ProjectFiles

TRAINING = """
import pathlib, time
from hv15.runs.failures import write_failure
from hv15.train.signals import Requests, Stopped

with Requests() as requests:
    pathlib.Path("at-work").touch()
    while not requests.stop:
        time.sleep(0.05)
    time.sleep(0.5)  # it saves
    pathlib.Path("saved").touch()
    stopped = Stopped(7)
    write_failure(stopped)
    raise stopped
"""
TRAINS = f"job {{log:q}} {sys.executable} train.py"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project whose first job trains until it is stopped."""
    made = make_project(tmp_path / "project", first=TRAINS)
    (made / "train.py").write_text(TRAINING)
    return made


def ended(root: Path) -> tuple[RunFolder, RunStatus]:
    wait_until(lambda: lock.holder(root) is None)
    [run] = history(root)
    return run, status(run, None)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGINT, "by Ctrl-C"),
        pytest.param(signal.SIGTERM, "by SIGTERM", marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, "because its terminal was closed", marks=pytest.mark.slow),  # see the next one
    ],
)
def test_a_run_by_hand_that_is_asked_to_stop_is_stopped_and_names_the_saved_step(
    root: Path, capsys: pytest.CaptureFixture[str], number: signal.Signals, words: str
) -> None:
    process = by_hand(root)
    wait_until((root / "at-work").exists)
    os.killpg(process.pid, number)
    process.wait(60)
    assert (root / "saved").exists()
    _, found = ended(root)
    reason = f"{words}; the training saved its state after step 7"
    assert (found.state, found.reason) == (RunState.STOPPED, reason)
    assert cli.main(["status", str(root)]) == 0
    said = capsys.readouterr().out
    assert f"stopped ({reason})" in said
    assert "failed" not in said
    files = ProjectFiles(root / "config.yaml", gpus=ScriptedGpus(lambda: ()))
    seen = files.read_run()
    jobs = files.read_jobs()
    assert seen is not None
    assert seen.current is not None
    assert (seen.current.state, seen.current.reason) == (RunState.STOPPED, reason)
    assert jobs is not None
    assert jobs.failures == ()
    assert JobState.FAILED not in {job.state for job in jobs.jobs}


@pytest.mark.slow
@pytest.mark.parametrize("shell", [False, True])
def test_a_terminal_that_is_closed_is_named(root: Path, shell: bool) -> None:
    """A real one. Its first process alone gets the kernel's signal: the shell, which passes it on, or Snakemake."""
    words = [sys.executable, "-m", "snakemake", "--cores", "1"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    pid, master = pty.fork()
    if pid == 0:
        os.chdir(root)
        os.environ["PATH"] = path
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        typed = ["bash", "--norc", "-ic", f"{shlex.join(words)}; true"] if shell else words
        os.execvp(typed[0], typed)
    try:
        wait_until((root / "at-work").exists)
    finally:
        os.close(master)
    os.waitpid(pid, 0)
    _, found = ended(root)
    assert (root / "saved").exists()
    assert (found.state, found.saved_step) == (RunState.STOPPED, 7)
    assert found.reason.startswith("because its terminal was closed")


def test_what_a_run_by_hand_prints_is_kept_with_the_output_of_its_jobs(tmp_path: Path) -> None:
    says = "job {log:q} bash -c 'echo the job says this; touch {output}'"
    root = make_project(tmp_path, second=says)
    assert by_hand(root).wait(60) == 0
    run, found = ended(root)
    assert found.state is RunState.FINISHED
    output = run.output.read_text()
    for words in ("Building DAG of jobs...", "Job stats:", "Making a", "the job says this", "3 of 3 steps (100%) done"):
        assert output.count(words) == 1, words
    assert "\x1b" not in output
