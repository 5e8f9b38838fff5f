"""The files of a comparison: a page that needs no other, charts, samples side by side, and equal bytes each time."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hv15.comparison.charts import loss_band, make_charts, validation_band
from hv15.comparison.groups import TrainingComparison
from hv15.comparison.samples import find_samples, shown_trainings, side_by_side
from hv15.comparison.trainings import ComparedTraining, read_training
from hv15.comparison.written import write_comparison
from hv15.project.metadata import product_made_from
from hv15.records.comparison_paths import ComparisonPaths
from hv15.records.paths import ProjectPaths
from hv15.sample.contact_sheet import read_sample
from hv15.train.curves import Line
from tests.comparison.made_up import ablation, make_sample, make_training

MADE_FROM = {"format": 1, "text": '<script>"quoted" & more</script>'}


class Page(HTMLParser):
    """What is on a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        self.words += data
        if self.rows and self.rows[-1] and data.strip():
            self.rows[-1][-1] += data

    def addresses(self) -> list[str]:
        return [value or "" for _, given in self.tags for name, value in given.items() if name in ("src", "href")]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ProjectPaths]:
    root = tmp_path_factory.mktemp("project")
    found = ablation(root, seeds=(1, 2))
    for number, paths in enumerate(found):
        for name in ("cat", "dog"):
            make_sample(paths, name, 40 + 50 * number)
            make_sample(paths, f"{name}.base", 20)
        make_sample(paths, "alone" if number == 0 else "other", 0)
    return {paths.run: paths for paths in found}


@pytest.fixture(scope="module")
def written(places: dict[str, ProjectPaths], tmp_path_factory: pytest.TempPathFactory) -> ComparisonPaths:
    out = ComparisonPaths(tmp_path_factory.mktemp("out"))
    write_comparison(compared(places), places, out, title="Shifts <b>", made_from=MADE_FROM)
    return out


def compared(places: dict[str, ProjectPaths]) -> TrainingComparison:
    return TrainingComparison(tuple(read_training(name, paths) for name, paths in places.items()))


@pytest.mark.slow
def test_equal_trainings_give_equal_files(
    places: dict[str, ProjectPaths], written: ComparisonPaths, tmp_path: Path
) -> None:
    again = write_comparison(
        compared(places), places, ComparisonPaths(tmp_path), title="Shifts <b>", made_from=MADE_FROM
    )
    assert len(again) == 6 + 2 * 4, "page, tables, sheet, video, and four charts as SVG and PDF"
    for file in again:
        assert file.read_bytes() == (written.folder / file.relative_to(tmp_path)).read_bytes(), file.name


def test_the_page_needs_no_other_file_and_shows_texts_as_texts(written: ComparisonPaths) -> None:
    text = written.page.read_text()
    page = Page(text)
    assert page.addresses()
    assert [each[:40] for each in page.addresses() if not each.startswith(("data:", "#"))] == []
    without_names = re.sub(r'xmlns(:\w+)?="[^"]*"|data:[^"]*', "", text)
    assert not re.search(r"https?://", without_names)
    assert "Shifts <b>" in page.words
    assert '"quoted"' not in text
    assert [given["content"] for tag, given in page.tags if given.get("name") == "hv15.made_from"]
    assert {tag for tag, _ in page.tags} & {"script", "video", "img", "svg"} == {"script", "video", "img", "svg"}


def test_the_tables_of_the_page(written: ComparisonPaths) -> None:
    rows = Page(written.page.read_text()).rows
    assert rows[1][:3] == ["1", "2", "0.4150 ± 0.0071"]
    assert rows[0][:4] == ["discrete_flow_shift", "Seeds", "Best validation", "At step"]
    assert [row[0] for row in rows[4:]] == [
        *("shift-1_seed-1", "shift-1_seed-2", "shift-3_seed-1", "shift-3_seed-2"),
    ]


def test_the_page_and_the_pictures_tell_what_they_were_made_from(written: ComparisonPaths) -> None:
    assert product_made_from(written.sheet) == MADE_FROM
    assert product_made_from(written.film) == MADE_FROM
    assert product_made_from(written.page) == MADE_FROM


def test_the_samples_of_the_first_seed_of_each_setting_stand_side_by_side(
    places: dict[str, ProjectPaths], written: ComparisonPaths
) -> None:
    comparison = compared(places)
    labels = shown_trainings(comparison)
    assert labels == {
        "shift-1_seed-1": "discrete_flow_shift 1",
        "shift-3_seed-1": "discrete_flow_shift 3",
    }
    shown = side_by_side(labels, {name: find_samples(places[name]) for name in labels})
    assert shown is not None
    assert shown.columns == ("no LoRA", "discrete_flow_shift 1", "discrete_flow_shift 3")
    assert [row.title for row in shown.rows] == ["a cat <i>runs</i>", "a dog <i>runs</i>"]
    assert [file.name for file in shown.rows[1].files] == ["dog.base.mp4", "dog.mp4", "dog.mp4"]
    film = read_sample(written.film)
    assert len(film) == 5
    greys = film[2].astype(int).mean(-1)
    shown_pixels = {grey: int((abs(greys - grey) < 3).sum()) for grey in (20, 40, 90, 140, 190)}
    cells = {grey for grey, count in shown_pixels.items() if count > 2 * 120 * 120}
    assert cells == {20, 40, 140}, "the three columns of two rows, without the second seeds"
    assert np.asarray(Image.open(written.sheet)).shape[1] > 3 * 128


def test_samples_from_other_noise_are_not_compared(tmp_path: Path) -> None:
    places = {paths.run: paths for paths in ablation(tmp_path, seeds=(1,))}
    for number, paths in enumerate(places.values()):
        make_sample(paths, "cat", 50, seed=number)
        make_sample(paths, "dog", 50, width=32 + 16 * number)
    found = {name: find_samples(paths) for name, paths in places.items()}
    assert side_by_side(shown_trainings(compared(places)), found) is None


@pytest.mark.slow
def test_pictures_of_a_former_comparison_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hv15.comparison.charts.save_figure", lambda figure, path: path.write_text("new"))
    places = {paths.run: paths for paths in ablation(tmp_path / "project", seeds=(1,))}
    out = ComparisonPaths(tmp_path / "out")
    out.charts.mkdir(parents=True)
    for file in (out.sheet, out.film, out.charts / "noise.svg", out.charts / "notes.txt"):
        file.write_text("former")
    written = write_comparison(compared(places), places, out, title="Two")
    assert not out.sheet.exists()
    assert not out.film.exists()
    assert {file.name for file in out.charts.iterdir()} == {
        *(f"{name}.{kind}" for name in ("setting", "validation", "noise", "loss") for kind in ("svg", "pdf")),
        "notes.txt",
    }
    assert all(file.exists() for file in written)
    assert "hv15.made_from" not in out.page.read_text()


def test_bands_are_means_over_what_all_seeds_have(tmp_path: Path) -> None:
    one = make_training(tmp_path, "one", losses=(0.5, 0.4, 0.3, 0.2), seed=1)
    two = make_training(tmp_path, "two", losses=(0.6, 0.4), seed=2)
    (group,) = compared({"one": one, "two": two}).groups
    band = validation_band(group)
    assert band is not None
    assert list(band.x) == [10, 20]
    assert list(band.mean) == pytest.approx([0.5, 0.3])
    assert list(band.deviation or ()) == pytest.approx([np.std([0.4, 0.6], ddof=1), np.std([0.2, 0.4], ddof=1)])


def test_losses_are_compared_as_far_as_all_have_come() -> None:
    lines = Line([1, 2, 3, 4], [1.0, 2.0, 3.0, 4.0]), Line([2, 4, 6], [2.0, 2.0, 2.0])
    trainings = tuple(ComparedTraining(f"run{n}", {"train.seed": n}, loss=line) for n, line in enumerate(lines))
    band = loss_band(TrainingComparison(trainings).groups[0])
    assert band is not None
    assert (list(band.x), list(band.mean)) == ([2, 3, 4], [2.0, 2.5, 3.0])
    assert loss_band(TrainingComparison((ComparedTraining("new", {}),)).groups[0]) is None


def test_losses_of_one_step_are_seen() -> None:
    trainings = tuple(
        ComparedTraining(f"rank{rank}", {"train.network_dim": rank}, loss=Line([1], [1 / rank])) for rank in (2, 4)
    )
    (chart,) = make_charts(TrainingComparison(trainings))
    markers = [line.get_marker() for line in chart.figure().axes[0].lines]
    assert markers == ["o", "o"]
