"""A report is read back as it was written, also one of a run that was ended early."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from hv15.records.device_rates import DeviceRates
from hv15.records.fields import to_json
from hv15.records.json_values import RecordError
from hv15.records.selftest import VERSION, Measured, Row, SelftestReport, read_report

REPORT = SelftestReport(
    hv15="0.1.0",
    made_at=1.5,
    device="NVIDIA H100 80GB HBM3",
    facts={"torch": "2.9"},
    sizes="full",
    rates=DeviceRates(device="NVIDIA H100 80GB HBM3", memory=80 << 30, torch="2.9", products={"bfloat16": 7e14}),
    rows=(
        Row(part="machine", name="products", state="ok", measured=Measured(rate=700.0, unit="TFLOP/s")),
        Row(part="numbers", name="attention", state="failed", message="differs", measured=Measured(error=1, bound=0)),
        Row(part="full size", name="step", state="ok", measured=Measured(seconds=2.5, times={"attention": 1.0})),
        Row(part="loop", name="resume", state="left out", message="no time"),
    ),
)


def test_a_report_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "selftest.json"
    path.write_text(json.dumps(to_json(REPORT)))
    assert read_report(path) == REPORT
    assert [row.name for row in REPORT.of("failed")] == ["attention"]


def test_unreadable_reports(tmp_path: Path) -> None:
    path = tmp_path / "selftest.json"
    for text in ("", "{", "[]", "{}", json.dumps(to_json(replace(REPORT, version=VERSION + 1)))):
        path.write_text(text)
        with pytest.raises(RecordError):
            read_report(path)
    with pytest.raises(RecordError, match="cannot be read"):
        read_report(tmp_path / "missing.json")


@pytest.mark.timeout(10)
def test_what_would_never_end(tmp_path: Path) -> None:
    """A pipe that nobody writes to, and a device; a link to a report is as good as the report."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(RecordError, match="not a regular file"):
            read_report(path)
    (tmp_path / "selftest.json").write_text(json.dumps(to_json(REPORT)))
    (tmp_path / "link").symlink_to("selftest.json")
    assert read_report(tmp_path / "link") == REPORT
