from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from hv15.environment import RUN_VARIABLE
from hv15.records.metrics import CheckpointRecord
from hv15.records.paths import ProjectPaths
from hv15.records.training import TrainingRecord
from hv15.runs import metrics
from hv15.runs.events import EventRecorder
from hv15.runs.metrics import keep_metrics, kept_files, record_of, training_files, training_progress
from hv15.runs.record import RunFolder, history, new_run
from tests.records.steps import lines, start_record, step_record


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    made = new_run(tmp_path)
    made.create(tmp_path / "config.yaml")
    made.write_record(os.getpid(), ["snakemake"], [])
    return made


def write(path: Path, steps: int) -> list[bytes]:
    records = [start_record(steps), *(step_record(n + 1) for n in range(steps)), CheckpointRecord(step=steps, path="a")]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(lines(*records))
    return path.read_bytes().splitlines()


def test_a_run_keeps_what_it_wrote_and_not_what_others_did(run: RunFolder) -> None:
    root = run.root
    write(root / "results/train/metrics.jsonl", 5)
    old = root / "results/rank-8/train/metrics.jsonl"
    write(old, 3)
    os.utime(old, (1.0, 1.0))
    write(root / "results/train-3ed97928/metrics.jsonl", 2)
    os.utime(root / "results/train-3ed97928/metrics.jsonl", (1.0, 1.0))
    assert [label for label, _ in training_files(root)] == ["train", "rank-8", "train-3ed97928"]
    keep_metrics(run)
    [(label, path)] = kept_files(run)
    assert label == "train"
    assert path.read_bytes() == (root / "results/train/metrics.jsonl").read_bytes()
    (root / "results/train/metrics.jsonl").write_bytes(b"")
    os.utime(root / "results/train/metrics.jsonl", (1.0, 1.0))
    keep_metrics(run)
    assert path.stat().st_size > 0


def test_very_long_ones_are_thinned_evenly(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MOST_STEPS", 10)
    written = write(run.root / "results/train/metrics.jsonl", 98)
    keep_metrics(run)
    kept = kept_files(run)[0][1].read_bytes().splitlines()
    assert kept[0] == written[0]
    assert kept[-1] == written[-1]
    steps = [record["step"] for line in kept if (record := json.loads(line))["kind"] == "step"]
    assert steps == list(range(10, 99, 10))


def test_without_a_training_nothing_is_kept(run: RunFolder) -> None:
    keep_metrics(run)
    assert kept_files(run) == []
    keep_metrics(RunFolder(run.root, "nothing"))


def test_a_run_that_is_started_by_hand_keeps_those_of_one_that_died(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUN_VARIABLE, "")
    write(run.root / "results/train/metrics.jsonl", 5)
    recorder = EventRecorder(SimpleNamespace(dryrun=False, overwrite_configfiles=[]), run.root, {})
    recorder.emit(logging.makeLogRecord({"event": "run_info"}))
    assert len(history(run.root)) == 2
    assert [label for label, _ in kept_files(run)] == ["train"]
    recorder.close()
    os.close(recorder._lock_descriptor or -1)


def test_how_far_the_training_is(tmp_path: Path) -> None:
    path = tmp_path / "results/train/metrics.jsonl"
    assert training_progress(ProjectPaths(tmp_path)) is None
    path.parent.mkdir(parents=True)
    path.write_text(lines(start_record(5000), *(step_record(n) for n in range(1, 4001))) + '{"kind": "st')
    assert path.stat().st_size > 2 * 64 * 1024  # the first line is not among the last ones that are read
    found = training_progress(ProjectPaths(tmp_path))
    assert found is not None
    assert (found.step, found.total, found.loss, found.eta_s, found.time) == (4000, 5000, 1 / 4000, 2000.0, 1e9 + 4000)
    longer = [start_record(8000, 4000), *(step_record(n) for n in range(4001, 8001))]
    path.write_text(lines(start_record(4000), *(step_record(n) for n in range(1, 4001)), *longer[:2000]))
    found = training_progress(ProjectPaths(tmp_path))
    assert found is not None
    assert (found.step, found.total) == (5999, 8000), "it was continued, and is longer now"
    path.write_text('[1]\n{"kind": "step", "step": "x", "loss": null, "step_s": true}\n')
    assert training_progress(ProjectPaths(tmp_path)) is None
    odd = json.loads(lines(step_record(7)))
    del odd["loss"], odd["step_s"]  # as an older version wrote it
    path.write_text(json.dumps(odd) + "\n")
    found = training_progress(ProjectPaths(tmp_path))
    assert found is not None
    assert (found.step, found.total, found.loss, found.eta_s) == (7, 0, None, None)


def test_the_settings_of_a_training_are_kept_with_its_metrics(run: RunFolder) -> None:
    write(run.root / "results/train/metrics.jsonl", 2)
    record = TrainingRecord({"task": "t2v"}, {"train": {"learning_rate": 1e-4}})
    assert record_of(run.root / "results/train/metrics.jsonl") is None
    record.write(run.root / "results/train")
    keep_metrics(run)
    TrainingRecord({}, {}).write(run.root / "results/train")
    [(_, kept)] = kept_files(run)
    assert record_of(kept) == record
    assert record_of(run.root / "results/train/metrics.jsonl") == TrainingRecord({}, {})
