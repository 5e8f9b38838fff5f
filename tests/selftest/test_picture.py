"""The picture of a report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from hv15.records.selftest import Measured, Row
from hv15.selftest.picture import draw
from tests.records.test_selftest import REPORT
from tests.selftest.test_text_report import STEP


def test_nothing_is_drawn_without_a_measured_step(tmp_path: Path) -> None:
    assert not draw(replace(REPORT, rows=REPORT.rows[:2]), tmp_path / "selftest.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_steps_of_which_little_is_known_are_drawn_too(tmp_path: Path) -> None:
    bare = Row(part="full size", name="bare", state="ok", measured=Measured(seconds=0.01))
    skipped = Row(part="full size", name="skipped", state="skipped", message="nf4: not installed")
    heights = []
    for rows in ((bare,), (STEP, bare, skipped)):
        assert draw(replace(REPORT, rows=rows), tmp_path / "selftest.png")
        with Image.open(tmp_path / "selftest.png") as picture:
            assert picture.format == "PNG"
            heights.append(picture.height)
    assert heights[1] > heights[0], "one line for each measured step"
