from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tui.data.jobs import JobsReader, JobState
from tui.data.reasons import plain_reason


def job(number: int, rule: str, **more: Any) -> dict[str, Any]:
    fields = {"wildcards": {}, "reason": "", "message": "", "log": [], "output": []}
    return {"id": number, "rule": rule, **fields, **more}


def append(path: Path, *events: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


def plan(*jobs: dict[str, Any]) -> dict[str, Any]:
    return {"event": "plan", "jobs": list(jobs), "total": len(jobs), "time": 0}


@pytest.fixture
def events(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def states(reader: JobsReader) -> list[str]:
    return [each.state.value for each in reader.jobs]


def test_a_run_from_plan_to_end(events: Path) -> None:
    now = [100.0]
    reader = JobsReader(events, clock=lambda: now[0])
    assert not reader.refresh()
    encode = [job(n, "encode_latents", wildcards={"shard": str(n)}, log=[f"logs/{n}.log"]) for n in (1, 2, 3)]
    append(events, plan(*encode, job(4, "train", reason="Missing output files: results/train.safetensors")))
    append(events, {"event": "start", "ids": [1], "time": 90.0}, {"event": "job", **encode[0], "time": 90.0})
    assert reader.refresh()
    assert states(reader) == ["running", "waiting", "waiting", "waiting"]
    assert reader.job(1).seconds == 10.0  # type: ignore[union-attr]
    assert reader.jobs[0].name == "encode_latents 1"
    assert reader.jobs[3].reason == "results/train.safetensors is not there yet"
    append(events, {"event": "done", "id": 1, "time": 110.0}, {"event": "progress", "done": 1, "total": 4, "time": 110})
    append(events, {"event": "job", **encode[1], "time": 110.0})
    now[0] = 115.0
    reader.refresh()
    progress = reader.progress()
    assert (progress.done, progress.total, progress.running) == (1, 4, 1)
    assert progress.eta_s == (20 - 5) + 20  # the rest of one job and another one; of the training nothing is known
    assert progress.eta_is_least
    append(events, {"event": "failed", **encode[1], "time": 130.0}, {"event": "job", **encode[2], "time": 130.0})
    append(events, {"event": "end", "done": 1, "total": 4, "failed": [2], "error": "it failed", "time": 131.0})
    reader.refresh()
    assert states(reader) == ["done", "failed", "cut short", "waiting"]
    assert [each.id for each in reader.ordered()] == [2, 3, 4, 1]
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
    append(events, {"event": "job", **job(1, "train"), "time": 10.0})
    reader.refresh()
    assert reader.progress().eta_s == 30.0
    assert reader.progress(training_eta_s=7.0).eta_s == 7.0


def test_a_clock_that_was_set_back_gives_no_negative_times(events: Path) -> None:
    append(events, plan(job(1, "a")), {"event": "job", **job(1, "a"), "time": 1000.0})
    reader = JobsReader(events, clock=lambda: 500.0)
    reader.refresh()
    assert reader.jobs[0].seconds == 0.0
    append(events, {"event": "done", "id": 1, "time": 400.0})
    reader.refresh()
    assert reader.jobs[0].seconds == 0.0


def test_jobs_of_a_dead_run_are_cut_short(events: Path) -> None:
    append(events, plan(job(1, "a")), {"event": "job", **job(1, "a"), "time": 1.0})
    reader = JobsReader(events)
    reader.refresh()
    reader.cut_short()
    assert states(reader) == ["cut short"]


def test_damaged_events_are_passed_over(events: Path) -> None:
    append(events, plan(job(1, "a")))
    bad: Iterable[bytes] = [
        b"\xff\n", b"[]\n", b'{"event": "done"}\n', b'{"event": "done", "id": "x"}\n',
        b'{"event": "plan", "jobs": 3}\n',
        b'{"event": "plan", "jobs": [{"id": null}]}\n', b'{"event": "progress", "done": null}\n', b'{"event": "job"}\n',
    ]  # fmt: skip
    with events.open("ab") as file:
        file.writelines(bad)
    append(events, {"event": "later", "id": 1}, {"event": "done", "id": 1, "time": "noon"})
    reader = JobsReader(events)
    reader.refresh()
    assert reader.bad_lines == len(list(bad))
    assert states(reader) == ["done"]


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


def test_ten_thousand_jobs(events: Path) -> None:
    long = "Missing output files: " + "x" * 300
    append(events, plan(*(job(n, f"rule{n % 5}", reason=long) for n in range(10_000))))
    assert events.stat().st_size > 4 << 20  # in one line
    append(events, *({"event": "done", "id": n, "time": 2.0} for n in range(5_000)))
    reader = JobsReader(events)
    while reader.refresh() or not reader.complete:
        pass
    assert [(each.done, each.waiting) for each in reader.by_rule()] == [(1000, 1000)] * 5
    assert [each.state for each in reader.ordered()[:5000]] == [JobState.WAITING] * 5000


@pytest.mark.parametrize(
    ("rule", "raw", "plain"),
    [
        ("train", "Missing output files: a.txt", "a.txt is not there yet"),
        ("train", "Input files updated by another job: results/train.json", "results/train.json will be made anew"),
        ("sample_spec", "Params have changed since last execution: before: 'x; Y'", "settings of this sample changed"),
        ("x", "Params have changed since last execution: Removed: a", "its settings changed"),
        ("x", "Missing output files: a, b, c, d, e; Code has changed since last execution",
         "a, b, c and 2 more are not there yet; the rule's command changed"),
        ("x", "Updated input files: a, b", "a, b are newer than the result"),
        ("x", "Something that Snakemake says later", "Something that Snakemake says later"),
        ("x", "Finished (was: Forced execution)", "asked for by force"),
        ("x", "", ""),
    ],
)  # fmt: skip
def test_plain_reasons(rule: str, raw: str, plain: str) -> None:
    assert plain_reason(rule, raw) == plain
