"""The metrics file."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from hv15.records.metrics import CheckpointRecord, WarningRecord, read_steps
from hv15.train.metrics import MetricsFile, loss_table, losses_of_step, memory_in_use
from hv15.train.summary import first_and_last
from tests.records.steps import step_record


def test_a_line_is_on_disk_at_once_and_offset_counts_bytes(tmp_path: Path) -> None:
    path = tmp_path / "train" / "metrics.jsonl"
    with MetricsFile(path) as metrics:
        metrics.write(CheckpointRecord(step=1, path="checkpoints/a"))
        metrics.write(WarningRecord(step=1, message="größer"))
        assert metrics.offset == path.stat().st_size
        lines = path.read_text().splitlines()
    assert json.loads(lines[0]).keys() == {"kind", "step", "path", "time"}
    assert json.loads(lines[1])["message"] == "größer"


def test_what_stands_behind_the_offset_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsFile(path) as metrics:
        metrics.write(step_record(1))
        offset = metrics.offset
        metrics.write(step_record(2))
    with path.open("ab") as file:
        file.write(b'{"kind": "step", "st')  # a killed writer
    with MetricsFile(path, offset) as metrics:
        metrics.write(step_record(2))
        metrics.write(step_record(3))
    assert [record.step for record in read_steps(path)] == [1, 2, 3]


def test_a_file_that_lost_its_end_gets_no_hole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"")
    with MetricsFile(path, 500) as metrics:
        metrics.write(step_record(9))
    assert [record.step for record in read_steps(path)] == [9]
    assert b"\0" not in path.read_bytes()


def test_torn_and_foreign_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsFile(path) as metrics:
        metrics.write(step_record(1))
    with path.open("ab") as file:
        file.write(b'\xff\xfe{{\n[1]\n"x"\n{"kind": "start"}\n{"kind": "of later"}\n{"kind": "step", "st')
    assert [record.step for record in read_steps(path)] == [1]


def test_the_other_processes_write_nothing(tmp_path: Path) -> None:
    with MetricsFile(tmp_path / "metrics.jsonl", mute=True) as metrics:
        metrics.write(step_record(1))
    assert not list(tmp_path.iterdir())


def test_nan_never_enters_the_file(tmp_path: Path) -> None:
    with MetricsFile(tmp_path / "metrics.jsonl") as metrics, pytest.raises(ValueError, match="JSON compliant"):
        metrics.write(step_record(1, loss=math.nan))


def test_losses_by_sigma() -> None:
    sigma = torch.tensor([0.0, 0.05, 0.31, 0.999, 1.0])
    losses = torch.tensor([1.0, 3.0, 5.0, 7.0, 9.0])
    loss, by_sigma = losses_of_step(*loss_table(losses, sigma).tolist())
    assert loss == 5.0
    assert by_sigma == (2.0, None, None, 5.0, None, None, None, None, None, 8.0)


def test_memory_is_that_of_this_process() -> None:
    before, _ = memory_in_use(torch.device("cpu"))
    block = torch.ones(40_000_000)
    after, peak = memory_in_use(torch.device("cpu"))
    assert after - before > 0.9 * block.nbytes
    assert peak >= after


def test_first_and_last_tenth() -> None:
    assert first_and_last([float(i) for i in range(20)]) == (0.5, 18.5)
    assert first_and_last([3.0, 2.0, 1.0]) == (3.0, 1.0)
