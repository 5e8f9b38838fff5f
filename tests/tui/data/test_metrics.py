from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tui.data.columns import Column, thin
from tui.data.metrics import MetricsReader, metrics_files


def step_line(step: int, loss: float, **more: object) -> str:
    bins: list[float | None] = [None] * 10
    bins[step % 10] = loss
    fields = {"epoch": step / 4, "loss": loss, "loss_by_sigma": bins, "lr": 1e-4, "grad_norm": 0.5, "step_s": 2.0}
    return json.dumps({"kind": "step", "step": step, **fields, "data_wait_s": 0.5, **more, "time": 1e9 + step}) + "\n"


def lines(steps: Sequence[int], factor: float = 1.0) -> str:
    return "".join(step_line(step, factor / step) for step in steps)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "results/train/metrics.jsonl"
    file.parent.mkdir(parents=True)
    return file


def read(path: Path) -> MetricsReader:
    reader = MetricsReader(path)
    while reader.refresh() or not reader.complete:
        pass
    return reader


def test_values_are_those_of_the_lines(path: Path) -> None:
    path.write_text('{"kind": "run", "step": 0, "total_steps": 40, "time": 1}\n' + lines(range(1, 31)))
    reader = read(path)
    loss = reader.series("loss")
    assert loss.x.tolist() == list(range(1, 31))
    np.testing.assert_allclose(loss.y, [1 / step for step in range(1, 31)], rtol=1e-6)
    third = reader.series("sigma_3")
    assert third.x.tolist() == [3, 13, 23]
    np.testing.assert_allclose(third.y, [1 / 3, 1 / 13, 1 / 23], rtol=1e-6)
    np.testing.assert_allclose(reader.series("data_wait_share").y, 0.25)
    assert reader.series("loss", axis="time").x[-1] == 60.0
    progress = reader.progress()
    assert (progress.step, progress.total, progress.eta_s) == (30, 40, 20.0)
    assert reader.at_step(7.4)["loss"] == pytest.approx(1 / 7)


def test_the_smoothed_loss_is_a_weighted_mean_of_all_before(path: Path) -> None:
    path.write_text(lines(range(1, 6)))
    losses = [1 / step for step in range(1, 6)]
    weights = [0.95**age for age in range(5)][::-1]
    expected = sum(weight * loss for weight, loss in zip(weights, losses, strict=True)) / sum(weights)
    reader = read(path)
    assert reader.series("loss_smooth").y[-1] == pytest.approx(expected)
    reader.smoothing = 0.0
    np.testing.assert_allclose(reader.series("loss_smooth").y, losses, rtol=1e-6)


def test_it_reads_only_what_is_new_and_waits_for_the_rest_of_a_torn_line(path: Path) -> None:
    path.write_text(lines([1, 2]))
    reader = read(path)
    assert not reader.refresh()
    whole = step_line(3, 0.3)
    with path.open("a") as file:
        file.write(whole[:20])
        file.flush()
        assert not reader.refresh()
        assert reader.rows == 2
        file.write(whole[20:])
    assert reader.refresh()
    assert reader.rows == 3


def test_a_resumed_training_replaces_the_steps_that_it_does_again(path: Path) -> None:
    """It cuts the file at the last saved state and goes on with other numbers, also to more than the old length."""
    path.write_text(lines(range(1, 11)))
    reader = MetricsReader(path)
    reader.refresh()
    with path.open("a") as file:
        file.write(lines(range(11, 21)))
    reader.refresh()
    path.write_text(lines(range(1, 13)) + lines(range(13, 31), factor=2))
    reader.refresh()
    again = reader.series("loss")
    assert again.x.tolist() == list(range(1, 31))
    assert again.y[-1] == pytest.approx(2 / 30)
    assert again.y[11] == pytest.approx(1 / 12)
    whole = read(path)
    for name in ("loss_smooth", "sigma_5"):
        np.testing.assert_allclose(reader.series(name).y, whole.series(name).y, rtol=1e-6)
    assert reader.series("loss", axis="time").x[-1] == 60.0


def test_steps_that_come_twice_without_a_cut_count_once(path: Path) -> None:
    path.write_text(lines([1, 2, 3, 4]) + lines([3, 4, 5], factor=10))
    loss = read(path).series("loss")
    assert loss.x.tolist() == [1, 2, 3, 4, 5]
    assert loss.y[2] == pytest.approx(10 / 3)


def test_another_file_in_its_place_is_read_from_its_beginning(path: Path) -> None:
    path.write_text(lines(range(1, 11)))
    reader = read(path)
    path.unlink()
    reader.refresh()
    assert (reader.rows, reader.error) == (0, "")
    path.write_text(lines([1, 2], factor=7))
    reader.refresh()
    assert reader.series("loss").y.tolist() == pytest.approx([7.0, 3.5])


def test_bad_lines_are_counted_and_passed_over(path: Path) -> None:
    bad = [
        b"\xff\xfe\n", b'{"kind": "step"\n', b"[1]\n", b"null\n", b'{"kind": "step", "step": "x"}\n',
        b'{"kind": "step", "step": Infinity}\n', b'{"kind": "step", "step": -1}\n', b'{"kind": 3}\n',
        b"[" * 200_000 + b"\n", b'{"kind": "step", "step": 1' + b"0" * 400 + b"}\n",
    ]  # fmt: skip
    odd = (
        b'{"kind": "step", "step": 2, "loss": "high", "loss_by_sigma": 3, "lr": true, "step_s": -5, "grad_norm": NaN}\n'
    )
    path.write_bytes(step_line(1, 1.0).encode() + b"".join(bad) + b"\n" + odd + step_line(3, 0.5).encode())
    reader = read(path)
    assert reader.bad_lines == len(bad)
    assert reader.rows == 3
    assert reader.series("loss").x.tolist() == [1, 3]
    assert reader.series("grad_norm").x.tolist() == [1, 3]
    assert math.isfinite(reader.series("loss_smooth").y[-1])


def test_a_line_without_end_stops_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tui.data.growing_file.LONGEST_LINE", 8 << 20)
    path.write_bytes(lines([1]).encode() + b"x" * (9 << 20))
    reader = read(path)
    assert reader.rows == 1
    with path.open("a") as file:
        file.write("tail of it\n" + step_line(2, 0.5))
    read_on = reader.refresh()
    assert read_on
    assert reader.series("loss").x.tolist() == [1, 2]


def test_marks_and_validation(path: Path) -> None:
    path.write_text(
        lines([1, 2])
        + '{"kind": "validation", "step": 2, "loss": 0.7}\n{"kind": "checkpoint", "step": 2, "path": "a"}\n'
        + lines([3, 4])
        + '{"kind": "validation", "step": 4, "loss": 0.6}\n'
    )
    reader = read(path)
    assert reader.series("validation_loss").x.tolist() == [2, 4]
    assert reader.series("validation_loss", axis="time").x.tolist() == [4.0, 8.0]
    assert [mark.fields["path"] for mark in reader.marks("checkpoint")] == ["a"]


def test_silence_is_measured_by_a_clock_that_does_not_jump(path: Path) -> None:
    now = [100.0]
    path.write_text('{"kind": "run", "step": 0, "total_steps": 9}\n' + lines([1, 2]))
    reader = MetricsReader(path, monotonic=lambda: now[0])
    assert reader.progress().silent_s is None
    reader.refresh()
    now[0] += 119
    assert not reader.progress().stalled
    now[0] += 2
    assert reader.progress().stalled


def test_a_forbidden_file_is_told(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("a file where a folder should be")
    reader = MetricsReader(path)
    assert not reader.refresh()
    assert "cannot be read" in reader.error
    assert reader.series("loss").points == 0


def test_thinning_keeps_every_peak() -> None:
    x = np.arange(100_000, dtype=np.float64)
    y = np.sin(x / 1000)
    y[54_321] = 50.0
    y[77_777] = -50.0
    few_x, few_y = thin(x, y, 100)
    assert len(few_x) <= 200
    assert (np.diff(few_x) > 0).all()
    assert (few_y.max(), few_y.min()) == (50.0, -50.0)
    assert set(zip(few_x, few_y, strict=True)) <= set(zip(x, y, strict=True))


def test_a_view_of_a_column_does_not_change() -> None:
    column = Column(np.float64)
    column.extend([1.0, 2.0, 3.0])
    view = column.values
    column.cut(1)
    column.extend([9.0, 9.0])
    assert view.tolist() == [1.0, 2.0, 3.0]
    assert column.values.tolist() == [1.0, 9.0, 9.0]


def test_the_training_and_its_experiments_are_found(path: Path, tmp_path: Path) -> None:
    path.write_text(lines(range(5, 9)))
    other = tmp_path / "results/rank-8/train/metrics.jsonl"
    other.parent.mkdir(parents=True)
    other.write_text(lines([1, 2]))
    files = metrics_files(tmp_path)
    assert [label for label, _ in files] == ["train", "rank-8"]
    readers = [MetricsReader(file, label=label) for label, file in files]
    for reader in readers:
        reader.refresh()
    assert [reader.series("loss").x.tolist() for reader in readers] == [[5, 6, 7, 8], [1, 2]]
