"""results/report.html in a browser: nothing is loaded from elsewhere, videos play, and it fits, light and dark.

Needs Chromium (Debian: `apt install chromium`) and is slow: `pytest -m slow tests/report`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hv15.project import Project
from hv15.report.page import ResultsPage
from tests.pages.browser import CHROMIUM, chromium, with_scripts
from tests.workflow.quick import QuickProject

LOOKED_AT = """
addEventListener("load", async () => {
  const said = {width: document.documentElement.scrollWidth, inner: innerWidth, videos: [], broken: []};
  for (const image of document.images) if (!image.complete || !image.naturalWidth) said.broken.push(image.alt);
  for (const video of document.querySelectorAll("video")) {
    video.preload = "auto";
    try {
      await video.play();
      video.pause();
      said.videos.push([video.videoWidth, video.videoHeight, video.duration]);
    } catch (error) { said.broken.push(String(error)); }
  }
  const loaded = performance.getEntriesByType("resource").map(each => each.name);
  said.requests = loaded.filter(name => !name.startsWith("data:"));
  said.charts = [...document.querySelectorAll("svg.chart")].map(svg => svg.getBoundingClientRect().width);
  const answer = document.createElement("pre");
  answer.id = "said";
  answer.textContent = JSON.stringify(said);
  document.body.append(answer);
});
"""
"""What the test adds to the page, which has no script, to look at it from inside."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, which is not installed (apt install chromium)"),
]


@pytest.fixture(scope="module")
def page(shown: QuickProject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = Project(shown.root / "config.yaml")
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(ResultsPage(project, path).text(), encoding="utf-8")
    return path


@pytest.mark.parametrize("width", [1280, 600])
def test_it_is_complete_in_a_browser(page: Path, tmp_path: Path, width: int) -> None:
    looked_at = page.with_name(f"looked-at-{width}.html")
    looked_at.write_text(with_scripts(page.read_text(encoding="utf-8"), LOOKED_AT), encoding="utf-8")
    size = f"--window-size={width},900"
    answers: list[str] = []
    for _ in range(5):  # its clock does not wait for the decoder of a busy machine
        seen = chromium(tmp_path, size, "--virtual-time-budget=10000", "--dump-dom", looked_at.as_uri())
        answers = answers or re.findall(r'<pre id="said">(.*?)</pre>', seen)
        if answers:
            break
    [answer] = answers
    said = json.loads(answer.replace("&amp;", "&"))
    assert said["broken"] == []
    assert said["requests"] == []
    assert [video[:2] for video in said["videos"]] == [[64, 64]] * 4
    assert all(duration == pytest.approx(9 / 24, abs=0.05) for _, _, duration in said["videos"])
    assert said["width"] <= said["inner"], "it has to be scrolled sideways"
    assert len(said["charts"]) == 6
    assert min(said["charts"]) > 250


@pytest.mark.parametrize(("scheme", "is_dark"), [(1, False), (0, True)], ids=["light", "dark"])
def test_it_follows_the_readers_colours(page: Path, tmp_path: Path, scheme: int, is_dark: bool) -> None:
    picture = tmp_path / "page.png"
    settings = f"--blink-settings=preferredColorScheme={scheme}"
    chromium(tmp_path, settings, "--window-size=1000,2400", f"--screenshot={picture}", page.as_uri())
    pixels = np.asarray(Image.open(picture).convert("L")).astype(int)
    paper = np.median(pixels)
    assert (paper < 60) == is_dark
    assert (paper > 240) == (not is_dark)
    assert (abs(pixels - paper) > 120).mean() > 0.005, "texts and lines are seen"


def test_it_prints_on_white_paper(page: Path, tmp_path: Path) -> None:
    printed = tmp_path / "page.pdf"
    chromium(tmp_path, "--blink-settings=preferredColorScheme=0", f"--print-to-pdf={printed}", page.as_uri())
    content = printed.read_bytes()
    assert content.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 12
