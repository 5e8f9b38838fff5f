"""What is told of a run, and when nothing has gone on for too long: with records as a run writes them, and a clock."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from pathlib import Path

import pytest

from hv15.config.notify import NotifySettings
from hv15.notices.progress import SignsOfLife
from hv15.notices.watch import RunWatch
from hv15.notices.wording import notice_of_end, notice_of_stall
from hv15.records.events import (
    JobDetails,
    JobDone,
    JobFailed,
    JobsCounted,
    JobStarted,
    RecordingStarted,
    RunDied,
    RunEnded,
    RunEvent,
)
from hv15.records.failures import Failure, FailureKind
from hv15.records.paths import ProjectPaths
from hv15.runs import lock
from hv15.runs.record import RunFolder, append_event, new_run
from hv15.runs.state import status
from tests.records.steps import lines, start_record, step_record

TRAIN = JobDetails(id=1, rule="train", experiment="a secret plan", log=("results/logs/train.log",))
SAMPLE = JobDetails(id=2, rule="sample_latents", wildcards={"name": "a red zorp"}, log=("results/logs/sample.log",))
MEMORY = Failure("out of memory at /home/me/zorp.mp4", "set train.blocks_to_swap", FailureKind.MEMORY)
TOLD = {"zorp", "/home/me", "secret"}
"""What is told only with details."""


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run of the project `cats` that began two minutes ago."""
    made = new_run(tmp_path / "cats")
    made.create(tmp_path / "cats/config.yaml")
    record = made.write_record(os.getpid(), ["snakemake"], [])
    content = json.loads(made.record_file.read_text()) | {"started": record.started - 120}
    made.record_file.write_text(json.dumps(content))
    return made


def wrote(run: RunFolder, *events: RunEvent) -> None:
    for event in events:
        append_event(run.events, event)


def trained(run: RunFolder, experiment: str = "", *, step_s: float = 2.0) -> None:
    metrics = ProjectPaths(run.root, experiment).metrics
    metrics.parent.mkdir(parents=True, exist_ok=True)
    steps = [step_record(step, time=time.time(), step_s=step_s, loss=0.25) for step in (1, 2)]
    metrics.write_text(lines(start_record(8), *steps))


def in_minutes(text: str) -> str:
    """A text without the seconds that a busy machine takes for a test."""
    return re.sub(r"(after \d+):[0-5]\d", r"\1:00", text)


def test_the_end_of_a_run(run: RunFolder) -> None:
    trained(run)
    wrote(run, RunEnded(done=3, total=3))
    found = notice_of_end(status(run, None), details=False)
    assert found.title == "hv15: cats finished"
    assert in_minutes(found.text) == "3 of 3 jobs done after 2:00. Training: step 2 of 8, loss 0.2500."
    assert found.training is not None
    assert (found.training.step, found.training.total, found.training.loss) == (2, 8, 0.25)


@pytest.mark.parametrize("details", [False, True])
def test_a_failure_names_kinds_and_only_with_details_causes(run: RunFolder, details: bool) -> None:
    wrote(run, JobFailed(job=TRAIN, failure=MEMORY), JobFailed(job=SAMPLE), RunEnded(done=1, total=3, failed=(1, 2)))
    (run.root / "results/logs").mkdir(parents=True)
    (run.root / "results/logs/sample.log").write_text("ValueError: /home/me/zorp.mp4\n")
    found = notice_of_end(status(run, None), details=details)
    assert (found.event, found.state) == ("failure", "failed")
    assert [(each.rule, each.kind) for each in found.failed] == [("train", "memory"), ("sample_latents", "bug")]
    everything = found.title + found.text + json.dumps([vars(each) for each in found.failed]) + str(found.details)
    assert {word for word in TOLD if word in everything} == (TOLD if details else set())
    if details:
        assert "a secret plan: train the LoRA: out of memory at /home/me/zorp.mp4; sample a red zorp: " in found.text
        assert found.failed[0].cure == "set train.blocks_to_swap"
    else:
        kinds = "Failed: train the LoRA (not enough memory); sample (a fault in hv15)."
        assert in_minutes(found.text) == f"1 of 3 jobs done after 2:00. {kinds} `hv15 status` says more."


def test_the_end_is_told_though_the_clock_was_put_back(run: RunFolder) -> None:
    wrote(run, RunEnded(done=3, total=3, time=time.time() - 3600))
    found = status(run, None)
    assert notice_of_end(found, details=False).text == "3 of 3 jobs done after 0:00."
    reader, writer = os.pipe()
    os.close(writer)
    assert [each.sent for each in RunWatch(run, NotifySettings(command=("true",)), reader).follow()] == [True]


@pytest.mark.parametrize("details", [False, True])
def test_a_plan_that_fails(run: RunFolder, details: bool) -> None:
    wrote(run, RunEnded(done=0, total=0, failure=Failure("zorp.mp4: no caption", "write one", FailureKind.USER)))
    found = notice_of_end(status(run, None), details=details)
    cause = ": zorp.mp4: no caption" if details else ""
    assert found.text.startswith(f"It could not be planned{cause}. `hv15 status` says more.")


def test_a_stopped_training_tells_its_step(run: RunFolder) -> None:
    stopped = Failure("saved", "again", FailureKind.STOPPED, saved_step=4)
    wrote(run, JobFailed(job=TRAIN, failure=stopped), RunEnded(done=0, total=3, failed=(1,), signal="SIGTERM"))
    found = notice_of_end(status(run, None), details=False)
    assert (found.event, found.state, found.saved_step) == ("end", "stopped", 4)
    assert "The training saved its state after step 4." in found.text


def test_a_run_that_died(run: RunFolder) -> None:
    wrote(run, JobsCounted(done=1, total=3), RunDied(reason="it was killed from outside"))
    found = notice_of_end(status(run, None), details=False)
    assert (found.event, found.state) == ("failure", "died")
    assert "It was killed from outside." in found.text


def test_a_stall_names_what_is_at_work(run: RunFolder) -> None:
    wrote(run, JobsCounted(done=1, total=3))
    for details, said in ((False, "train the LoRA"), (True, "a secret plan: train the LoRA")):
        found = notice_of_stall(status(run, run.id), 1800, [TRAIN], details=details)
        assert in_minutes(found.text).startswith(
            f"Nothing has gone on for 30 minutes: {said}. 1 of 3 jobs done after 2:00."
        )
        assert found.silent_s == 1800


def test_any_sign_of_life_ends_the_silence(run: RunFolder) -> None:
    now = [0.0]
    progress = SignsOfLife(run, monotonic=lambda: now[0])

    def silent_after(seconds: float) -> float:
        now[0] += seconds
        return progress.silent_s()

    progress.silent_s()
    assert silent_after(60) == 60
    wrote(run, JobStarted(job=TRAIN))
    assert (silent_after(60), silent_after(5)) == (0, 5)
    assert progress.running == (TRAIN,)
    (run.root / "results/logs").mkdir(parents=True)
    for file in (run.output, run.root / "results/logs/train.log", ProjectPaths(run.root, TRAIN.experiment).metrics):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("1")
        assert (silent_after(60), silent_after(5)) == (0, 5)
    run.notices.write_text("a notice")
    assert silent_after(5) == 10, "a notice is no sign of life"
    wrote(run, JobDone(id=1))
    assert (silent_after(60), progress.running) == (0, ())


def test_slow_steps_are_no_stall(run: RunFolder) -> None:
    progress = SignsOfLife(run)
    trained(run, TRAIN.experiment, step_s=120)
    progress.silent_s()
    assert progress.steps_s() == 0, "the training of an earlier run"
    wrote(run, JobStarted(job=TRAIN))
    progress.silent_s()
    assert progress.steps_s() == 20 * 120


def test_a_stall_is_told_once_until_the_run_goes_on(run: RunFolder) -> None:
    """The whole loop, in milliseconds; the end of its input is the end of the run."""
    descriptor = lock.take(run.root, run.id)
    assert descriptor is not None
    wrote(run, RecordingStarted())
    reader, writer = os.pipe()
    command = ("/bin/sh", "-c", 'echo "$0" >> told', "{event} {state}")
    settings = NotifySettings(command=command, stall_minutes=0.1 / 60)
    told = run.root / "told"
    watch = RunWatch(run, settings, reader)
    found = list[object]()
    thread = threading.Thread(target=lambda: found.extend(watch.follow()))
    thread.start()
    for count in (1, 2):
        deadline = time.monotonic() + 60
        while not told.exists() or told.read_text().count("stall running\n") < count:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        if count == 1:
            wrote(run, JobsCounted(done=1, total=3))
    wrote(run, RunEnded(done=3, total=3))
    os.close(writer)
    thread.join(60)
    os.close(descriptor)
    assert told.read_text() == "stall running\n" * 2 + "end finished\n"
    assert [str(each) for each in found] == ["command (sh): sent"]
    assert [json.loads(line)["event"] for line in run.notices.read_text().splitlines()] == ["stall", "stall", "end"]
