"""The report in words, two reports side by side, and the line for the table of hardware."""

from __future__ import annotations

from dataclasses import replace

from hv15.records.estimate import Seconds
from hv15.records.selftest import Measured, Row, SelftestReport
from hv15.selftest.text_report import comparison, markdown_row, report_lines
from tests.records.test_selftest import REPORT

STEP = Row(
    part="full size",
    name="training step, 480x480x49, batch 2",
    state="ok",
    took=20.0,
    measured=Measured(
        seconds=4.0,
        flops=989e12,
        share=0.25,
        memory=24 << 30,
        planned_memory=23 << 30,
        planned_seconds=Seconds(2.0, 5.0),
        times={"attention": 1.0, "products": 2.0, "gaps": 1.0},
    ),
)


def test_a_step_in_words() -> None:
    text = "\n".join(report_lines(replace(REPORT, rows=(*REPORT.rows, STEP), finished=True)))
    assert "4.00 s (plan 2.00 s to 5.00 s); 25 % of the peak; 24.00 GiB (plan 23.00 GiB)" in text
    assert "products 50 %, attention 25 %, gaps 25 %" in text
    assert "3 ok, 1 FAILED, 1 left out in 20 s" in text
    assert "not finished" not in text
    assert "not finished" in "\n".join(report_lines(REPORT))


def _of(row: Row, **changes: object) -> SelftestReport:
    measured = replace(row.measured, **changes)  # type: ignore[arg-type]
    return replace(REPORT, rows=(replace(row, measured=measured),))


def test_two_reports_row_by_row() -> None:
    only_here = Row(part="loop", name="only in B", state="failed", message="x")
    second = _of(STEP, seconds=2.0, memory=12 << 30, share=0.5)
    lines = comparison(_of(STEP), replace(second, rows=(*second.rows, only_here)))
    table = "\n".join(" ".join(line.split()) for line in lines)
    assert "training step, 480x480x49, batch 2 4.00 s 2.00 s 0.50" in table
    assert "training step, 480x480x49, batch 2 memory 24.00 GiB 12.00 GiB 0.50" in table
    assert "training step, 480x480x49, batch 2 MFU 25 % 50 % 2.00" in table
    assert "only in B - FAILED" in table


def test_rates_are_compared_and_endings_shown() -> None:
    table = "\n".join(" ".join(line.split()) for line in comparison(REPORT, REPORT))
    assert "products 700 TFLOP/s 700 TFLOP/s 1.00" in table
    assert "attention FAILED FAILED" in table
    assert "resume left out left out" in table


def test_small_figures_and_a_rate_without_a_unit() -> None:
    tiny = _of(STEP, seconds=0.25, memory=3 << 20, share=None)
    table = "\n".join(" ".join(line.split()) for line in comparison(_of(STEP), tiny))
    assert "batch 2 4.00 s 250 ms 0.06" in table
    assert "batch 2 memory 24.00 GiB 3.00 MiB 0.00" in table
    assert "batch 2 MFU 25 % ok" in table
    table = "\n".join(" ".join(line.split()) for line in comparison(_of(STEP, rate=2.0), _of(STEP, rate=1.0)))
    assert "batch 2 2 1 0.50" in table


def test_a_line_for_the_table_of_hardware() -> None:
    line = markdown_row(replace(REPORT, rows=(*REPORT.rows, STEP), finished=True))
    assert line.startswith("| NVIDIA H100 80GB HBM3, 80 GiB, torch 2.9 | `hv15 selftest`: ")
    assert "(failed: attention)" in line
    assert "training step, 480x480x49, batch 2: 4.00 s, 24.00 GiB" in line
    assert line.count("|") == 3
    assert "\n" not in line
