"""The page of a comparison in a browser: nothing is loaded from elsewhere, the film plays, a click sorts a table.

Needs Chromium (Debian: `apt install chromium`) and is slow: `pytest -m slow tests/comparison`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hv15.comparison.groups import TrainingComparison
from hv15.comparison.trainings import read_training
from hv15.comparison.written import write_comparison
from hv15.records.comparison_paths import ComparisonPaths
from tests.comparison.made_up import ablation, make_sample
from tests.pages.browser import CHROMIUM, chromium, with_scripts
from tests.report.test_browser import LOOKED_AT

SORTED = """
const header = [...document.querySelectorAll("thead th")].find(each => each.textContent === "Best validation");
const column = () => [...header.closest("table").tBodies[0].rows].map(row => row.cells[header.cellIndex].textContent);
const orders = [column()];
for (let turn = 0; turn < 2; turn++) { header.click(); orders.push(column()); }
const told = document.createElement("pre");
told.id = "orders";
told.textContent = JSON.stringify([orders, header.getAttribute("aria-sort")]);
document.body.append(told);
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, which is not installed (apt install chromium)"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    found = ablation(root, shifts=(3.0, 1.0, 5.0), seeds=(1, 2))
    for number, paths in enumerate(found):
        make_sample(paths, "cat", 40 * number, width=64, height=64, frames=9)
    out = ComparisonPaths(root / "results")
    comparison = TrainingComparison(tuple(read_training(paths.run, paths) for paths in found))
    write_comparison(comparison, {paths.run: paths for paths in found}, out, title="Shifts")
    return out.page


def looked_at(page: Path, folder: Path, width: int) -> str:
    """What a browser has of a page that was looked at from inside."""
    copy = page.with_name(f"looked-at-{width}.html")
    copy.write_text(with_scripts(page.read_text(encoding="utf-8"), LOOKED_AT, SORTED), encoding="utf-8")
    return chromium(folder, f"--window-size={width},900", "--virtual-time-budget=10000", "--dump-dom", copy.as_uri())


@pytest.mark.parametrize("width", [1280, 600])
def test_it_is_complete_in_a_browser(page: Path, tmp_path: Path, width: int) -> None:
    seen = looked_at(page, tmp_path, width)
    [answer] = re.findall(r'<pre id="said">(.*?)</pre>', seen)
    said = json.loads(answer.replace("&amp;", "&"))
    assert said["broken"] == []
    assert said["requests"] == []
    assert len(said["videos"]) == 1
    assert said["videos"][0][2] == pytest.approx(9 / 24, abs=0.05)
    assert said["width"] <= said["inner"], "it has to be scrolled sideways"
    assert len(said["charts"]) == 4


def test_a_click_sorts_by_the_number(page: Path, tmp_path: Path) -> None:
    seen = looked_at(page, tmp_path, 1000)
    [answer] = re.findall(r'<pre id="orders">(.*?)</pre>', seen)
    (before, up, down), state = json.loads(answer)
    assert before == ["0.6150 ± 0.0071", "0.4150 ± 0.0071", "0.8150 ± 0.0071"]
    assert up == sorted(before)
    assert down == sorted(before, reverse=True)
    assert state == "descending"
