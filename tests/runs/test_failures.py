"""A job that fails says why beside its log: in the shell of the rules, in a real run, and by any kind of error."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import pytest

from hv15 import cli
from hv15.atomic import write_text
from hv15.data.media import MediaError
from hv15.environment import FAILURE_VARIABLE, OUTPUT_VARIABLE
from hv15.errors import USER_ERROR, UserError
from hv15.out_of_memory import OutOfMemory
from hv15.records.events import JobDetails, JobFailed
from hv15.records.failures import Failure, FailureKind
from hv15.records.paths import ProjectPaths
from hv15.records.problems import ConfigError, Place, Problem
from hv15.runs.failures import explain_job, failure_beside, failure_of, write_failure
from hv15.runs.job_shell import prefix
from hv15.runs.state import RunState, all_events, status
from hv15.train.signals import Stopped
from tests.runs.project import by_hand, make_project, wait_until

LOG = Path("results/logs/train.log")
MISSING = "hv15 show nowhere.safetensors"


@pytest.fixture(autouse=True)
def _outside_of_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FAILURE_VARIABLE, raising=False)


def job(root: Path, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a rule does."""
    (root / LOG).parent.mkdir(parents=True, exist_ok=True)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shell = prefix().format() + f"job {LOG} {command}"
    return subprocess.run(
        ["bash", "-c", shell],
        cwd=root,
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_job_writes_its_failure_beside_its_log(tmp_path: Path) -> None:
    done = job(tmp_path, MISSING)
    assert done.returncode == USER_ERROR
    assert (tmp_path / LOG).read_text() == done.stdout != ""
    failure = failure_beside(tmp_path / LOG)
    assert failure is not None
    assert failure.kind is FailureKind.USER
    assert "nowhere.safetensors" in failure.cause
    assert failure.cause in done.stdout
    record = json.loads(ProjectPaths().failure(tmp_path / LOG).read_text())
    assert (record["rule"], record["command"]) == ("train", MISSING.split())
    assert record["failure"]["place"] == "nowhere.safetensors"


@pytest.mark.slow
def test_what_an_earlier_attempt_left_goes_when_the_job_starts_anew(tmp_path: Path) -> None:
    job(tmp_path, MISSING)
    assert job(tmp_path, "echo all is well").returncode == 0
    assert failure_beside(tmp_path / LOG) is None
    assert (tmp_path / LOG).read_text() == "all is well\n"


def test_output_of_a_run_that_was_started_by_hand_is_kept_by_its_jobs(tmp_path: Path) -> None:
    output = tmp_path / "output.log"
    output.write_text("Snakemake says\n")
    for words in ("one", "two"):
        job(tmp_path, f"echo {words}", **{OUTPUT_VARIABLE: str(output)})
    assert output.read_text() == "Snakemake says\none\ntwo\n"
    assert (tmp_path / LOG).read_text() == "two\n"


def test_the_log_and_the_failure_are_written_though_the_terminal_is_closed(tmp_path: Path) -> None:
    """A signal to all processes of the job; the command itself takes its time to save."""
    (tmp_path / LOG).parent.mkdir(parents=True)
    (tmp_path / "save.py").write_text(SAVING)
    shell = prefix().format() + f"job {LOG} {sys.executable} save.py"
    with subprocess.Popen(["bash", "-c", shell], cwd=tmp_path, start_new_session=True) as process:
        wait_until((tmp_path / "at-work").exists)
        os.killpg(process.pid, signal.SIGHUP)
        assert process.wait(30) == 3
    assert (tmp_path / LOG).read_text() == "saved\n"
    failure = failure_beside(tmp_path / LOG)
    assert failure is not None
    assert failure.saved_step == 7


SAVING = """
import pathlib, time
from hv15.runs.failures import write_failure
from hv15.train.signals import Requests, Stopped

with Requests() as requests:
    pathlib.Path("at-work").touch()
    while not requests.stop:
        time.sleep(0.05)
    print("saved")
    stopped = Stopped(7)
    write_failure(stopped)
    raise stopped
"""


def test_the_run_takes_it_up_and_tells_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_project(tmp_path, first=f"job {{log:q}} {MISSING}")
    assert by_hand(root).wait(60) == 1
    [run] = (root / ".hv15/runs").iterdir()
    [failed] = [event for event in all_events(run / "events.jsonl") if isinstance(event, JobFailed)]
    assert failed.job.wildcards == {"name": "a"}, "Snakemake tells them when a job starts, not when it fails"
    assert failed.failure is not None
    assert "nowhere.safetensors" in failed.failure.cause
    ProjectPaths(root).failure(root / failed.job.log[0]).unlink()  # the history does not need it
    assert cli.main(["status", str(root)]) == 0
    said = capsys.readouterr().out
    assert failed.failure.cause.splitlines()[0] in said
    assert f"what to do: {failed.failure.cure}" in said
    assert cli.main(["status", str(root), "--json"]) == 0
    [told] = json.loads(capsys.readouterr().out)["run"]["failures"]
    assert (told["job"], told["cause"], told["kind"]) == ("first a", failed.failure.cause, "user")
    assert told["place"] == "nowhere.safetensors"


@pytest.mark.slow
def test_a_job_that_was_killed_is_known_by_its_exit(tmp_path: Path) -> None:
    root = make_project(tmp_path, second="job {log:q} bash -c 'kill -9 $$'")
    assert by_hand(root).wait(60) == 1
    [run] = (root / ".hv15/runs").iterdir()
    [failed] = [event for event in all_events(run / "events.jsonl") if isinstance(event, JobFailed)]
    assert failed.failure is not None
    assert (failed.failure.kind, failed.failure.cause) == (FailureKind.KILLED, "it was killed from outside")


def full_disk() -> UserError:
    """What the program really raises."""
    error = OSError(errno.ENOSPC, "No space left on device")
    with patch("os.fsync", side_effect=error), pytest.raises(UserError) as raised:
        write_text(Path(tempfile.gettempdir()) / "hv15-full", "y")
    return raised.value


@pytest.mark.parametrize(
    ("error", "kind", "cause"),
    [
        (UserError("config.yaml:3: x", hint="put y"), FailureKind.USER, "config.yaml:3: x"),
        (
            full_disk(),
            FailureKind.USER,
            str(Path(tempfile.gettempdir()) / "hv15-full: cannot be written: No space left on device"),
        ),
        (OutOfMemory("train", RuntimeError("none left")), FailureKind.MEMORY, "out of memory in training: none left"),
        (KeyError("lr"), FailureKind.BUG, "KeyError: 'lr'"),
        (RuntimeError("CUDA error: device-side assert"), FailureKind.UNKNOWN, "RuntimeError: CUDA error: device-side"),
        (KeyboardInterrupt(), FailureKind.STOPPED, "it was asked to stop"),
        (Stopped(812), FailureKind.STOPPED, "it was asked to stop and saved its state after step 812"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_error_has_a_cause_and_a_cure(error: BaseException, kind: FailureKind, cause: str) -> None:
    failure = failure_of(error)
    assert failure is not None
    assert failure.kind is kind
    assert failure.cause.startswith(cause)
    assert failure.cure
    if isinstance(error, UserError) and error.hint:
        assert failure.cure == error.hint


@pytest.mark.parametrize(
    ("error", "place"),
    [
        (
            ConfigError([Problem("wrong", place=Place(Path("c.yaml"), 3, 7, ("train",))), Problem("x")]),
            "c.yaml:3:7 train",
        ),
        (MediaError(Path("clips/a.mp4"), "is damaged"), "clips/a.mp4"),
        (UserError.at("lora.safetensors", "no such file"), "lora.safetensors"),
        (full_disk(), str(Path(tempfile.gettempdir()) / "hv15-full")),
        (UserError("nothing to do with a file"), ""),
    ],
    ids=["config", "media", "file", "system", "nothing"],
)
def test_what_a_user_can_fix_has_its_place(error: UserError, place: str) -> None:
    failure = failure_of(error)
    assert failure is not None
    assert failure.place == place
    assert str(failure) == error.message, "the message names the place already"


def test_a_bug_is_placed_at_our_own_line() -> None:
    try:
        json.loads(prefix().format(1))
    except ValueError as error:
        failure = failure_of(error)
    assert failure is not None
    assert failure.place.startswith("decoder.py:"), "there is no line of ours"
    with pytest.raises(AttributeError) as raised:
        explain_job(Path(), None, None)  # type: ignore[arg-type]  # wrong on purpose
    failure = failure_of(raised.value)
    assert failure is not None
    assert failure.place.startswith("failures.py:")
    assert str(failure) == f"{failure.cause} ({failure.place})"


def test_wrong_arguments_are_no_failure_of_a_job() -> None:
    assert failure_of(SystemExit(2)) is None


def test_a_failure_that_cannot_be_written_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(FAILURE_VARIABLE, str(tmp_path / "file" / "x"))
    write_failure(KeyError("x"))


def test_the_first_process_of_a_job_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    monkeypatch.setenv(FAILURE_VARIABLE, str(path))
    write_failure(UserError("the disk is full"))
    write_failure(RuntimeError("another process of the group has gone"))
    assert json.loads(path.read_text())["failure"]["cause"] == "the disk is full"


def test_without_a_record_the_end_of_the_log_is_asked(tmp_path: Path) -> None:
    (tmp_path / LOG).parent.mkdir(parents=True)
    (tmp_path / LOG).write_text("step 1\nterminate called after throwing an instance of 'std::bad_alloc'\n")
    details = JobDetails(id=1, rule="train", log=(str(LOG),))
    assert explain_job(tmp_path, details, None).kind is FailureKind.MEMORY
    said = Failure("other", "cure", FailureKind.USER)
    assert explain_job(tmp_path, details, said) == said
    gone = JobDetails(id=1, rule="train", log=("results/logs/none.log",))
    assert explain_job(tmp_path, gone, None).cause == "its log says nothing about it"


def test_a_refused_plan_tells_its_cause(tmp_path: Path) -> None:
    make_project(tmp_path)
    (tmp_path / "Snakefile").write_text(REFUSING)
    from hv15.runs import control, lock

    run = control.start(tmp_path, ["all"], ["--cores", "1"])
    wait_until(lambda: lock.holder(tmp_path) is None)
    found = status(run, None)
    assert (found.state, found.reason) == (RunState.FAILED, "config.yaml:3:1 train: is wrong")
    assert found.failure == Failure("config.yaml:3:1 train: is wrong", "put it right", FailureKind.USER)


def test_a_target_that_nothing_makes_is_named(tmp_path: Path) -> None:
    make_project(tmp_path)
    from hv15.runs import control, lock

    run = control.start(tmp_path, ["results/c.mp4"], ["--cores", "1"])
    wait_until(lambda: lock.holder(tmp_path) is None)
    assert status(run, None).reason == "results/c.mp4: the config asks for nothing with that name"


REFUSING = """
from hv15.errors import USER_ERROR, UserError
from hv15.runs.events import record_events
from snakemake.exceptions import WorkflowError
error = UserError("config.yaml:3:1 train: is wrong", hint="put it right")
record_events(workflow).refused(error)
raise WorkflowError(str(error))
"""
