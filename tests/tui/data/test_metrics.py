from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest

from hv15.records.metrics import (
    RECORDS,
    VERSION,
    EndRecord,
    Measure,
    MetricsRecord,
    StepRecord,
    ValidationRecord,
    measures,
)
from tests.records.steps import lines as record_lines
from tests.records.steps import start_record, step_record
from tui.data.columns import Column, thin
from tui.data.curves import CHARTS, CurveSource, charts_of
from tui.data.metrics import MetricsReader


def step_line(step: int, loss: float) -> str:
    return record_lines(step_record(step, loss=loss))


def lines(steps: Sequence[int], factor: float = 1.0) -> str:
    return "".join(step_line(step, factor / step) for step in steps)


def curve(field: str, how: str = "value", *, number: int = 0, record: type[MetricsRecord] = StepRecord) -> CurveSource:
    """Find a curve among those of the charts."""
    found = [each for chart in CHARTS for each in chart.curves if (each.record, each.field) == (record, field)]
    [source] = [each for each in found if (each.how, each.bin) == (how, number)]
    return source


RAW, SMOOTH = curve("loss"), curve("loss", "smoothed")
VALIDATION = curve("loss", record=ValidationRecord)


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
    path.write_text(record_lines(start_record(40)) + lines(range(1, 31)))
    reader = read(path)
    loss = reader.series(RAW)
    assert loss.x.tolist() == list(range(1, 31))
    np.testing.assert_allclose(loss.y, [1 / step for step in range(1, 31)], rtol=1e-6)
    third = reader.series(curve("loss_by_sigma", "bin", number=3))
    assert third.x.tolist() == [3, 13, 23]
    np.testing.assert_allclose(third.y, [1 / 3, 1 / 13, 1 / 23], rtol=1e-6)
    np.testing.assert_allclose(reader.series(curve("data_wait_s", "share")).y, 0.25)
    assert reader.series(RAW, axis="time").x[-1] == 60.0
    status = reader.status()
    assert (status.step, status.total, status.eta_s) == (30, 40, 20.0)
    assert (status.loss, status.loss_smooth) == pytest.approx((1 / 30, reader.series(SMOOTH).y[-1]))


def test_the_smoothed_loss_is_a_weighted_mean_of_all_before(path: Path) -> None:
    path.write_text(lines(range(1, 6)))
    losses = [1 / step for step in range(1, 6)]
    weights = [0.95**age for age in range(5)][::-1]
    expected = sum(weight * loss for weight, loss in zip(weights, losses, strict=True)) / sum(weights)
    reader = read(path)
    assert reader.series(SMOOTH).y[-1] == pytest.approx(expected)
    reader = MetricsReader(path, smoothing=0.0)
    reader.refresh()
    np.testing.assert_allclose(reader.series(SMOOTH).y, losses, rtol=1e-6)


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
    """It cuts the file at the last saved state and continues with other numbers, also to more than the old length."""
    path.write_text(lines(range(1, 11)))
    reader = MetricsReader(path)
    reader.refresh()
    with path.open("a") as file:
        file.write(lines(range(11, 21)))
    reader.refresh()
    path.write_text(lines(range(1, 13)) + lines(range(13, 31), factor=2))
    reader.refresh()
    again = reader.series(RAW)
    assert again.x.tolist() == list(range(1, 31))
    assert again.y[-1] == pytest.approx(2 / 30)
    assert again.y[11] == pytest.approx(1 / 12)
    whole = read(path)
    for each in (SMOOTH, curve("loss_by_sigma", "bin", number=5)):
        np.testing.assert_allclose(reader.series(each).y, whole.series(each).y, rtol=1e-6)
    assert reader.series(RAW, axis="time").x[-1] == 60.0


def test_steps_that_come_twice_without_a_cut_count_once(path: Path) -> None:
    path.write_text(lines([1, 2, 3, 4]) + lines([3, 4, 5], factor=10))
    loss = read(path).series(RAW)
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
    assert reader.series(RAW).y.tolist() == pytest.approx([7.0, 3.5])


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
    assert reader.series(RAW).x.tolist() == [1, 3]
    assert reader.series(curve("grad_norm")).x.tolist() == [1, 3]
    assert math.isfinite(reader.series(SMOOTH).y[-1])


def test_a_line_without_end_stops_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hv15.runs.followed_file.LONGEST_LINE", 8 << 20)
    path.write_bytes(lines([1]).encode() + b"x" * (9 << 20))
    reader = read(path)
    assert reader.rows == 1
    with path.open("a") as file:
        file.write("tail of it\n" + step_line(2, 0.5))
    read_on = reader.refresh()
    assert read_on
    assert reader.series(RAW).x.tolist() == [1, 2]


def test_the_loss_of_validations_is_a_curve_of_its_own(path: Path) -> None:
    def validated(step: int, loss: float) -> str:
        return record_lines(ValidationRecord(step=step, loss=loss))

    path.write_text(lines([1, 2]) + validated(2, 0.7))
    reader = read(path)
    with path.open("a") as file:
        file.write(lines([3, 4]) + validated(4, 0.6))
    reader.refresh()
    assert reader.series(VALIDATION).x.tolist() == [2, 4]
    assert reader.series(VALIDATION, axis="time").x.tolist() == [4.0, 8.0]
    path.write_text(lines([1, 2]) + validated(2, 0.7) + lines([3, 4]) + validated(4, 0.5))
    reader.refresh()
    assert reader.series(VALIDATION).y.tolist() == pytest.approx([0.7, 0.5]), "a training that resumed did it again"


def test_each_noise_level_of_a_validation_is_a_curve(path: Path) -> None:
    levels = (0.25, None, *[0.5] * 7)
    records = [ValidationRecord(step=step, loss=None, loss_by_quantile=levels) for step in (2, 4)]
    path.write_text(lines([1, 2, 3, 4]) + "".join(map(record_lines, records)))
    reader = read(path)
    first, second = (curve("loss_by_quantile", "bin", number=number, record=ValidationRecord) for number in (0, 1))
    assert reader.series(first).x.tolist() == [2, 4]
    assert reader.series(first).y.tolist() == [0.25, 0.25]
    assert not len(reader.series(second).x)
    assert not len(reader.series(VALIDATION).x), "no loss that is a number"
    assert reader.bad_lines == 0


def test_a_training_that_ends_early_has_the_length_that_it_has(path: Path) -> None:
    ended = EndRecord(step=3, total_steps=3, reason="enough")
    path.write_text(record_lines(start_record(40)) + lines([1, 2, 3]) + record_lines(ended))
    status = read(path).status()
    assert (status.step, status.total) == (3, 3)


def test_a_later_version_is_named_and_its_numbers_are_not_guessed(path: Path) -> None:
    later = replace(start_record(40, step=3), version=VERSION + 1)
    path.write_text(lines([1, 2, 3]) + record_lines(later) + lines([4, 5]))
    reader = read(path)
    assert reader.series(RAW).x.tolist() == [1, 2, 3]
    assert (
        reader.error
        == f"metrics.jsonl is of version {VERSION + 1}, but this hv15 understands only versions up to {VERSION}"
    )


def test_fields_and_kinds_of_later_are_passed_over(path: Path) -> None:
    wider = json.dumps({**json.loads(step_line(2, 0.5)), "weight_norm": 3.0}) + "\n"
    path.write_text(lines([1]) + '{"kind": "of later", "step": 1}\n' + wider)
    reader = read(path)
    assert (reader.rows, reader.bad_lines, reader.error) == (2, 0, "")


def test_what_an_earlier_version_did_not_write_has_no_curve(path: Path) -> None:
    old = json.loads(step_line(1, 0.5))
    del old["memory_peak"]
    path.write_text(json.dumps(old) + "\n" + lines([2]))
    assert read(path).series(curve("memory_peak")).x.tolist() == [2]


def test_silence_is_measured_by_a_clock_that_does_not_jump(path: Path) -> None:
    now = [100.0]
    path.write_text(record_lines(start_record(9)) + lines([1, 2]))
    reader = MetricsReader(path, monotonic=lambda: now[0])
    assert reader.status().silent_s is None
    reader.refresh()
    now[0] += 119
    assert not reader.status().stalled
    now[0] += 2
    assert reader.status().stalled


def test_a_forbidden_file_is_told(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("a file where a folder should be")
    reader = MetricsReader(path)
    assert not reader.refresh()
    assert "cannot be read" in reader.error
    assert reader.series(RAW).points == 0


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


def test_charts_are_made_from_what_records_say() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Later(MetricsRecord):
        kind = "later"
        norm: Annotated[float, Measure("Weights", unit="B", label="now", log=True)]
        norm_peak: Annotated[float, Measure("Weights", unit="B", label="peak")]
        wait: Annotated[float, Measure("Waiting, share of a step", unit="s", share_of="step_s")]
        note: str

    weights, wait = charts_of([Later])
    assert (weights.name, weights.title, weights.scale, weights.log) == ("norm", "Weights, GiB", 2**-30, True)
    assert [each.label for each in weights.curves] == ["now", "peak"]
    assert (wait.title, wait.scale, wait.curves[0].how) == ("Waiting, share of a step", 1.0, "share")


def test_every_measured_field_has_a_chart_of_its_title() -> None:
    drawn = {(each.record, each.field) for chart in CHARTS for each in chart.curves}
    assert drawn == {(record, field) for record in RECORDS.values() for field in measures(record)}
    assert len({chart.name for chart in CHARTS}) == len(CHARTS)
