"""The metrics file."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from hv15.train.metrics import (
    MetricsFile,
    first_and_last,
    loss_fields,
    loss_table,
    memory_fields,
    read_steps,
)


def test_a_line_is_on_disk_at_once_and_offset_counts_bytes(tmp_path: Path) -> None:
    path = tmp_path / "train" / "metrics.jsonl"
    with MetricsFile(path) as metrics:
        metrics.write("step", step=1, loss=0.5)
        metrics.write("note", text="größer")
        assert metrics.offset == path.stat().st_size
        lines = path.read_text().splitlines()
    assert json.loads(lines[0]).keys() == {"kind", "step", "loss", "time"}
    assert json.loads(lines[1])["text"] == "größer"


def test_what_stands_behind_the_offset_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsFile(path) as metrics:
        metrics.write("step", step=1)
        offset = metrics.offset
        metrics.write("step", step=2)
    with path.open("ab") as file:
        file.write(b'{"kind": "step", "st')  # a killed writer
    with MetricsFile(path, offset) as metrics:
        metrics.write("step", step=2)
        metrics.write("step", step=3)
    assert [record["step"] for record in read_steps(path)] == [1, 2, 3]


def test_a_file_that_lost_its_end_gets_no_hole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"")
    with MetricsFile(path, 500) as metrics:
        metrics.write("step", step=9)
    assert [record["step"] for record in read_steps(path)] == [9]
    assert b"\0" not in path.read_bytes()


def test_torn_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"kind": "step", "step": 1}\n\xff\xfe{{\n[1]\n"x"\n{"kind": "run"}\n{"kind": "step", "st')
    assert [record["step"] for record in read_steps(path)] == [1]


def test_the_other_processes_write_nothing(tmp_path: Path) -> None:
    with MetricsFile(tmp_path / "metrics.jsonl", mute=True) as metrics:
        metrics.write("step", step=1)
    assert not list(tmp_path.iterdir())


def test_nan_never_enters_the_file(tmp_path: Path) -> None:
    with MetricsFile(tmp_path / "metrics.jsonl") as metrics, pytest.raises(ValueError, match="JSON compliant"):
        metrics.write("step", loss=math.nan)


def test_losses_by_sigma() -> None:
    sigma = torch.tensor([0.0, 0.05, 0.31, 0.999, 1.0])
    losses = torch.tensor([1.0, 3.0, 5.0, 7.0, 9.0])
    fields = loss_fields(*loss_table(losses, sigma).tolist())
    assert fields["loss"] == 5.0
    assert fields["loss_by_sigma"] == [2.0, None, None, 5.0, None, None, None, None, None, 8.0]


def test_memory_is_that_of_this_process() -> None:
    before = memory_fields(torch.device("cpu"))
    block = torch.ones(40_000_000)
    after = memory_fields(torch.device("cpu"))
    assert after["memory"] - before["memory"] > 0.9 * block.nbytes
    assert after["memory_peak"] >= after["memory"]


def test_first_and_last_tenth() -> None:
    assert first_and_last([float(i) for i in range(20)]) == (0.5, 18.5)
    assert first_and_last([3.0, 2.0, 1.0]) == (3.0, 1.0)
