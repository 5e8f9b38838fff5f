from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from hv15.records.events import (
    VERSION,
    JobDetails,
    JobDone,
    JobFailed,
    JobsCounted,
    JobsPlanned,
    JobsStarted,
    JobStarted,
    RecordingStarted,
    RunDied,
    RunEnded,
    RunEvent,
)
from hv15.records.failures import Failure, FailureKind
from hv15.runs.record import append_event
from tui.data.jobs import JobsReader, JobState
from tui.data.reasons import plain_reason


def job(number: int, rule: str, **more: Any) -> JobDetails:
    return JobDetails(id=number, rule=rule, **more)


def append(path: Path, *events: RunEvent) -> None:
    for event in events:
        append_event(path, event)


def plan(*jobs: JobDetails) -> JobsPlanned:
    return JobsPlanned(time=0, jobs=jobs, total=len(jobs))


@pytest.fixture
def events(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def states(reader: JobsReader) -> list[str]:
    return [each.state.value for each in reader.jobs]


def test_a_run_from_plan_to_end(events: Path) -> None:
    now = [100.0]
    reader = JobsReader(events, clock=lambda: now[0])
    assert not reader.refresh()
    encode = [job(n, "encode_latents", wildcards={"shard": str(n)}, log=(f"logs/{n}.log",)) for n in (1, 2, 3)]
    append(events, plan(*encode, job(4, "train", reason="Missing output files: results/train.safetensors")))
    append(events, JobsStarted(time=90.0, ids=(1,)), JobStarted(time=90.0, job=encode[0]))
    assert reader.refresh()
    assert states(reader) == ["running", "waiting", "waiting", "waiting"]
    assert reader.job(1).seconds == 10.0  # type: ignore[union-attr]
    assert reader.jobs[0].name == "encode clips 1"
    assert reader.jobs[3].reason == "results/train.safetensors is not there yet"
    append(events, JobDone(time=110.0, id=1), JobsCounted(time=110, done=1, total=4))
    append(events, JobStarted(time=110.0, job=encode[1]))
    now[0] = 115.0
    reader.refresh()
    progress = reader.progress()
    assert (progress.done, progress.total, progress.running) == (1, 4, 1)
    assert progress.eta_s == (20 - 5) + 20  # the rest of one job and another one; of the training nothing is known
    assert progress.eta_is_least
    failure = Failure("the disk is full", "free some space", FailureKind.USER)
    append(events, JobFailed(time=130.0, job=encode[1], failure=failure), JobStarted(time=130.0, job=encode[2]))
    append(events, RunEnded(time=131.0, done=1, total=4, failed=(2,), error="it failed"))
    reader.refresh()
    assert states(reader) == ["done", "failed", "cut short", "waiting"]
    assert [each.id for each in reader.ordered()] == [2, 3, 4, 1]
    assert reader.job(2).failure == failure  # type: ignore[union-attr]
    count = reader.by_rule()[0]
    assert (count.done, count.failed, count.cut, count.waiting, count.seconds) == (1, 1, 1, 0, 20.0)
    assert reader.progress().error == "it failed"
    assert reader.progress().ended


def test_lengths_of_an_earlier_run_are_used(events: Path, tmp_path: Path) -> None:
    benchmark = tmp_path / "results/benchmarks/train.tsv"
    benchmark.parent.mkdir(parents=True)
    benchmark.write_text("s\th:m:s\tmax_rss\n50.0\t0:00:50\t3\n")
    append(events, plan(job(1, "train")))
    reader = JobsReader(events, tmp_path, clock=lambda: 30.0)
    reader.refresh()
    assert reader.progress().eta_s == 50.0
    append(events, JobStarted(time=10.0, job=job(1, "train")))
    reader.refresh()
    assert reader.progress().eta_s == 30.0
    assert reader.progress(training_eta_s=7.0).eta_s == 7.0


def test_a_clock_that_was_set_back_gives_no_negative_times(events: Path) -> None:
    append(events, plan(job(1, "a")), JobStarted(time=1000.0, job=job(1, "a")))
    reader = JobsReader(events, clock=lambda: 500.0)
    reader.refresh()
    assert reader.jobs[0].seconds == 0.0
    append(events, JobDone(time=400.0, id=1))
    reader.refresh()
    assert reader.jobs[0].seconds == 0.0


@pytest.mark.parametrize("noted", [False, True])
def test_jobs_of_a_dead_run_are_cut_short(events: Path, noted: bool) -> None:
    append(events, plan(job(1, "a")), JobStarted(time=1.0, job=job(1, "a")))
    reader = JobsReader(events)
    reader.refresh()
    if noted:
        append(events, RunDied(time=4.0, reason="kill -9"))
        reader.refresh()
    else:
        reader.cut_short(4.0)
    assert states(reader) == ["cut short"]
    assert reader.jobs[0].seconds == 3.0


def test_a_job_that_was_asked_to_stop_is_cut_short(events: Path) -> None:
    stopped = Failure("it was asked to stop", "start again", FailureKind.STOPPED, saved_step=8)
    append(events, plan(job(1, "train")), JobFailed(time=2.0, job=job(1, "train"), failure=stopped))
    reader = JobsReader(events)
    reader.refresh()
    assert states(reader) == ["cut short"]


def test_damaged_events_are_passed_over(events: Path) -> None:
    append(events, plan(job(1, "a")))
    bad: Iterable[bytes] = [
        b"\xff\n", b"[]\n", b'{"event": "done"}\n', b'{"event": "done", "id": "x", "time": 1}\n',
        b'{"event": "plan", "jobs": 3}\n', b'{"event": "done", "id": 1, "time": "noon"}\n',
        b'{"event": "plan", "jobs": [{"id": null}]}\n', b'{"event": "progress", "done": null}\n', b'{"event": "job"}\n',
    ]  # fmt: skip
    with events.open("ab") as file:
        file.writelines(bad)
        file.write(b'{"event": "later", "id": 1}\n')
    append(events, JobDone(time=2.0, id=1))
    reader = JobsReader(events)
    reader.refresh()
    assert reader.bad_lines == len(list(bad))
    assert states(reader) == ["done"]


def test_events_of_a_later_version_are_named_and_not_guessed(events: Path) -> None:
    append(events, RecordingStarted(version=VERSION + 1), plan(job(1, "a")))
    reader = JobsReader(events)
    reader.refresh()
    assert reader.jobs == ()
    assert (
        reader.error
        == f"events.jsonl is of version {VERSION + 1}, but this hv15 understands only versions up to {VERSION}"
    )


def test_another_run_in_the_file_begins_anew(events: Path) -> None:
    append(events, plan(job(1, "a"), job(2, "b")))
    reader = JobsReader(events)
    reader.refresh()
    events.write_text("")
    append(events, plan(job(7, "c")))
    reader.refresh()
    assert [each.id for each in reader.jobs] == [7]
    events.unlink()
    reader.refresh()
    assert (reader.jobs, reader.error) == ((), "")


@pytest.mark.slow
def test_ten_thousand_jobs(events: Path) -> None:
    long = "Missing output files: " + "x" * 300
    append(events, plan(*(job(n, f"rule{n % 5}", reason=long) for n in range(10_000))))
    assert events.stat().st_size > 4 << 20  # in one line
    append(events, *(JobDone(time=2.0, id=n) for n in range(5_000)))
    reader = JobsReader(events)
    while reader.refresh() or not reader.complete:
        pass
    assert [(each.done, each.waiting) for each in reader.by_rule()] == [(1000, 1000)] * 5
    assert [each.state for each in reader.ordered()[:5000]] == [JobState.WAITING] * 5000


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("train.network_dim 4 -> 8; new clip dog.mp4", "train.network_dim 4 -> 8; new clip dog.mp4"),
        ("Missing output files: a.txt", "a.txt is not there yet"),
        ("Input files updated by another job: results/train.json", "results/train.json will be made again"),
        ("Params have changed since last execution: before: 'x; Y'", "its settings changed"),
        ("Missing output files: a, b, c, d, e; Code has changed since last execution",
         "a, b, c and 2 more are not there yet; the rule's command changed"),
        ("Updated input files: a, b", "a, b are newer than the result"),
        ("Something that Snakemake says later", "Something that Snakemake says later"),
        ("Finished (was: Forced execution)", "asked for by force"),
        ("", ""),
    ],
)  # fmt: skip
def test_plain_reasons(raw: str, plain: str) -> None:
    assert plain_reason(raw) == plain
