"""The metrics of a training, written and read by the same classes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from hv15.records.json_values import RecordError
from hv15.records.metrics import (
    RECORDS,
    SIGMA_BINS,
    VERSION,
    CheckpointRecord,
    EndRecord,
    MetricsRecord,
    PreviewRecord,
    StepRecord,
    ValidationRecord,
    WarningRecord,
    measures,
    metrics_line,
    read_metrics,
    read_steps,
)
from tests.records.steps import lines, start_record, step_record

EXAMPLES = [
    start_record(200),
    step_record(7),
    ValidationRecord(step=7, loss=0.5, loss_by_quantile=(0.1, None), sigmas=(0.2, 0.3), is_best=True),
    EndRecord(step=7, total_steps=7, reason="the loss does not fall any more"),
    PreviewRecord(step=7, name="cat", path="previews/cat.mp4"),
    CheckpointRecord(step=7, path="checkpoints/a.safetensors"),
    WarningRecord(step=7, message="the loss jumps", hint="look at it", clips=("a.mp4",)),
]


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: record.kind)
def test_a_line_reads_back_as_what_was_written(record: MetricsRecord) -> None:
    assert read_metrics(json.loads(json.dumps(metrics_line(record)))) == record


def test_what_was_written_again_ends_otherwise() -> None:
    """Readers compare the last 64 bytes of what they have read."""
    first, again = (lines(replace(step_record(7), time=time)) for time in (1e9, 1e9 + 0.001))
    assert len(first) > 128
    assert first[-64:] != again[-64:]


def test_there_is_an_example_of_each_kind() -> None:
    assert {type(record) for record in EXAMPLES} == set(RECORDS.values())


def test_what_a_later_version_adds_is_passed_over() -> None:
    assert read_metrics({**metrics_line(step_record(3)), "of_later": 4.0}) == step_record(3)
    assert read_metrics({"kind": "of later", "step": 3}) is None


def test_a_number_that_an_earlier_version_did_not_write_is_unknown() -> None:
    line = metrics_line(step_record(3))
    del line["memory_peak"]
    record = read_metrics(line)
    assert isinstance(record, StepRecord)
    assert math.isnan(record.memory_peak)
    assert record.loss == step_record(3).loss


def test_a_version_that_is_not_understood_is_named() -> None:
    later = {**metrics_line(start_record(9)), "version": VERSION + 1}
    with pytest.raises(
        RecordError, match=f"is of version {VERSION + 1}, but this hv15 understands only versions up to {VERSION}"
    ):
        read_metrics(later)


@pytest.mark.parametrize(
    ("field", "value"),
    [("step", "3"), ("step", 1.5), ("step", True), ("lr", None), ("loss", "high"), ("loss_by_sigma", 3)],
)
def test_a_field_of_another_type_is_named(field: str, value: object) -> None:
    with pytest.raises(RecordError, match=f"{field}: expected"):
        read_metrics({**metrics_line(step_record(3)), field: value})  # type: ignore[dict-item]  # wrong on purpose


def test_only_steps_are_read_as_steps(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines(*EXAMPLES, step_record(8)))
    assert list(read_steps(path)) == [step_record(7), step_record(8)]
    assert list(read_steps(path, last_bytes=len(lines(step_record(8))) + 9)) == [step_record(8)]
    assert list(read_steps(path, last_bytes=10**6)) == [step_record(7), step_record(8)]


def test_a_skipped_step_may_have_no_numbers() -> None:
    skipped = step_record(3, loss=None, grad_norm=None, skipped_steps=1)
    assert read_metrics(json.loads(json.dumps(metrics_line(skipped)))) == skipped


def test_each_number_of_a_step_says_what_it_is() -> None:
    """All fields but the place in the training are measured, and those that share a title differ in their labels."""
    own = set(StepRecord.__dataclass_fields__) - set(MetricsRecord.__dataclass_fields__)
    found = measures(StepRecord)
    assert own - found.keys() == {"epoch"}
    assert all(measure.title for measure in found.values())
    shown = [(measure.title, measure.label) for kind in RECORDS.values() for measure in measures(kind).values()]
    assert len(shown) == len(set(shown))
    assert found["loss_by_sigma"].bins == SIGMA_BINS
    assert {measure.share_of for measure in found.values()} - {""} <= found.keys()
