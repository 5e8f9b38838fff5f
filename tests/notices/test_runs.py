"""Real runs of Snakemake with the process that follows them: one notice for each end, whatever ends the run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hv15 import cli
from hv15.runs import control, lock
from hv15.runs.processes import kill
from hv15.runs.record import RunFolder, history
from hv15.runs.state import RunState, current, status
from tests.notices.servers import Inbox, inbox
from tests.runs.project import FAILS, SAVES, by_hand, make_project, wait_until

CORES = ("--cores", "1")
SECRET = "/a/private/folder"
PRIVATE_FAILURE = f"echo 'error: {SECRET}/a red zorp.mp4 is broken' > {{log}}; exit 2"


@pytest.fixture
def box() -> Iterator[Inbox]:
    with inbox() as found:
        yield found


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project folder; whatever still runs there in the end is killed."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    yield tmp_path / "cats"
    for run in history(tmp_path / "cats"):
        if record := run.record():
            kill(record)


def notifying(root: Path, box: Inbox, **settings: Any) -> Path:
    """A project whose runs are told to a webhook."""
    section = {"webhook": f"{box.address}/hook", **settings}
    (root / "config.yaml").write_text(f"task: t2v\nnotify: {json.dumps(section)}\n")
    return root


def start(root: Path) -> RunFolder:
    return control.start(root, ["all"], CORES)


def ended(run: RunFolder) -> None:
    wait_until(lambda: lock.holder(run.root) is None)


def followers(root: Path) -> list[psutil.Process]:
    return [
        each for each in psutil.process_iter() if str(root) in words(each) and "hv15.notices.detached" in words(each)
    ]


def words(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


@pytest.mark.slow
def test_the_end_of_a_detached_run_is_told_before_the_run_is_over(root: Path, box: Inbox) -> None:
    """What is told is in test_watch.py; that it is told by a run, in the tests of a killed one and of what is wrong."""
    run = start(notifying(make_project(root), box))
    ended(run)
    [found] = box.contents
    assert (found["event"], found["state"], found["project"], found["run"]) == ("end", "finished", "cats", run.id)
    assert found["jobs"] == {"done": 3, "total": 3, "failed": 0}
    assert found["title"] == "hv15: cats finished"
    assert found["text"].startswith("3 of 3 jobs done after 0:0")
    assert found["details"] is None
    assert str(root.parent) not in json.dumps(found)
    assert "notice of the end: webhook (127.0.0.1" in run.output.read_text()
    [line] = map(json.loads, run.notices.read_text().splitlines())
    assert (line["event"], line["sent"]) == ("end", True)
    wait_until(lambda: not followers(root))


@pytest.mark.slow
def test_a_run_by_hand_that_fails_is_told_without_what_is_private(root: Path, box: Inbox) -> None:
    process = by_hand(notifying(make_project(root, second=PRIVATE_FAILURE), box))
    assert process.wait(120) == 1
    [found] = box.contents
    assert (found["event"], found["state"]) == ("failure", "failed")
    assert found["jobs"] == {"done": 1, "total": 3, "failed": 1}
    private = dict.fromkeys(("job", "cause", "cure", "log"))
    assert found["failed"] == [{"rule": "second", "kind": "unknown", **private}]
    assert found["title"] == "hv15: cats failed"
    assert "Failed: second." in found["text"]
    assert "zorp" not in json.dumps(found)
    assert SECRET not in json.dumps(found)


@pytest.mark.slow
def test_with_details_the_cause_is_told_and_settings_of_the_command_line_count(root: Path, box: Inbox) -> None:
    make_project(root, second=PRIVATE_FAILURE)
    snakefile = (root / "Snakefile").read_text().replace("record_events(workflow)", "record_events(workflow, config)")
    (root / "Snakefile").write_text(snakefile)
    process = by_hand(notifying(root, box), "--config", "notify={details: true}")
    assert process.wait(120) == 1
    [found] = box.contents
    assert f"{SECRET}/a red zorp.mp4" in found["text"]
    assert f"{SECRET}/a red zorp.mp4" in found["failed"][0]["cause"]
    assert found["details"]["folder"] == str(root)


@pytest.mark.parametrize("kill_it", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_or_stopped_is_told_by_a_process_that_outlives_it(
    root: Path, box: Inbox, kill_it: bool
) -> None:
    run = start(notifying(make_project(root, first=SAVES), box))
    wait_until((root / "at-work").exists)
    if kill_it:
        record = run.record()
        assert record is not None
        os.kill(record.pid, signal.SIGKILL)
        wait_until(lambda: box.contents, 60)
        assert (box.contents[0]["event"], box.contents[0]["state"]) == ("failure", "died")
        assert "killed from outside" in box.contents[0]["text"]
        control.end_orphans(root)
    else:
        assert control.stop(root).state is RunState.RUNNING
        ended(run)
        assert (box.contents[0]["event"], box.contents[0]["state"]) == ("end", "stopped")
    assert len(box.contents) == 1


@pytest.mark.slow
def test_killed_with_all_its_processes_it_is_told_once(root: Path, box: Inbox) -> None:
    """The process that follows it is none of them."""
    run = start(notifying(make_project(root, first=SAVES), box))
    wait_until((root / "at-work").exists)
    wait_until(lambda: [each.ppid() for each in followers(root)] == [1])
    control.stop(root, now=True)
    wait_until(lambda: box.contents, 60)
    assert box.contents[0]["state"] == "stopped"
    assert status(run, None).reason == "killed on request"
    wait_until(lambda: not followers(root))
    assert len(box.contents) == 1


@pytest.mark.slow
def test_a_stall_is_told_once_until_the_run_goes_on(root: Path, box: Inbox) -> None:
    waits = "echo at work; until [ -e go ]; do sleep 0.05; done; echo goes on; until [ -e end ]; do sleep 0.05; done; "
    project = make_project(root, first=f"({waits}) > {{log}}; echo made > {{output}}")
    run = start(notifying(project, box, stall_minutes=0.02, events=["stall"]))
    wait_until(lambda: box.contents, 60)
    [found] = box.contents
    assert (found["event"], found["state"], found["title"]) == ("stall", "running", "hv15: cats has stalled")
    assert found["silent_s"] >= 1.2
    assert [each["rule"] for each in found["running"]] == ["first"]
    (root / "go").touch()
    wait_until(lambda: len(box.contents) > 1)
    (root / "end").touch()
    ended(run)
    assert [each["event"] for each in box.contents] == ["stall", "stall"], "the end was not asked for"


@pytest.mark.slow
def test_nothing_that_is_wrong_with_a_notice_changes_the_run(root: Path, tmp_path: Path) -> None:
    with inbox([403]) as box:
        project = notifying(make_project(root), box, command=["./nothing.sh"], ntfy="${HV15_NO_SUCH_TOPIC}")
        process = subprocess.run(
            [*control.command(root / "config.yaml", "all", "--cores", "1")],
            cwd=project,
            env=control.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    assert process.returncode == 0
    told = [line for line in process.stderr.splitlines() if line.startswith("notice of the end: ")]
    assert [line.partition(": ")[2] for line in told] == [
        "ntfy (HV15_NO_SUCH_TOPIC): not sent: the environment variable HV15_NO_SUCH_TOPIC is not set (notify.ntfy)",
        f"webhook ({box.address[7:]}): not sent: the server answered 403 Forbidden",
        "command (nothing.sh): not sent: there is no program ./nothing.sh",
    ]
    found = current(root)
    assert found is not None
    assert found.state is RunState.FINISHED


@pytest.mark.slow
def test_no_process_is_started_without_a_place_or_an_event(root: Path, box: Inbox, capsys: Any) -> None:
    """Also if the settings are wrong, which the run itself reports."""
    for section in ("{}", f"{{webhook: {box.address}, events: []}}", "{webhook: 3}", "{nothing: 1}"):
        (make_project(root) / "config.yaml").write_text(f"task: t2v\nnotify: {section}\n")
        (root / "results/b.txt").unlink(missing_ok=True)
        ended(run := start(root))
        assert not run.notices.exists()
    assert box.contents == []
    assert "notify.nothing: unknown key" in run.output.read_text()


@pytest.mark.slow
def test_the_users_own_file_serves_all_projects_and_status_says_what_became_of_it(
    root: Path, tmp_path: Path, box: Inbox, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "home/hv15").mkdir(parents=True)
    (tmp_path / "home/hv15/notify.yaml").write_text(f"ntfy: {box.address}/my-runs\n")
    run = start(make_project(root, second=FAILS))
    ended(run)
    [found] = box.contents
    assert (found["topic"], found["title"], found["priority"]) == ("my-runs", "hv15: cats failed", 4)
    assert cli.main(["status", str(root)]) == 0
    assert f"notice of the failure: ntfy ({box.address[7:]}): sent" in capsys.readouterr().out


@pytest.mark.slow
def test_short_runs_and_those_with_nothing_to_do_are_not_told(root: Path, box: Inbox) -> None:
    ended(start(notifying(make_project(root), box, min_minutes=10)))
    ended(start(notifying(root, box)))
    assert box.contents == []


@pytest.mark.slow
def test_a_job_that_was_tried_again_is_no_failure(root: Path, box: Inbox) -> None:
    first = "if [ -e tried ]; then echo made > {output}; else touch tried; exit 1; fi"
    run = control.start(notifying(make_project(root, first=first), box), ["all"], [*CORES, "--retries", "1"])
    ended(run)
    found = status(run, None)
    assert (found.state, found.failed) == (RunState.FINISHED, ())
    assert [each["state"] for each in box.contents] == ["finished"]
