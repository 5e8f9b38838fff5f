"""results/report.html: one file with everything, whatever the texts in it are."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from justhtml import JustHTML

from hv15.models.weights.header import read_header
from hv15.pages.inlined import Inliner
from hv15.project import Project
from hv15.records.paths import ProjectPaths
from hv15.report.page import ResultsPage
from hv15.report.trained import TrainedLoRA
from hv15.units import TIMES
from tests.report.conftest import HOSTILE, STEPS
from tests.workflow.quick import QuickProject
from tests.workflow.stub_hv15 import write_safetensors

SECTIONS = ["curves", "samples", "dataset", "settings", "provenance", "reproduce"]
CHARTS = ["Loss", "Validation by noise level", "Loss by noise level", "Learning rate", "Gradient norm", "Memory"]
SAFE = ("data:", "#")
"""What an address on the page may begin with."""
ADDRESSES = ("src", "href", "poster", "xlink:href", "data", "action", "srcset")


class Elements(HTMLParser):
    """The elements of a page, their texts, and what they refer to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def page_text(project: Project, **arguments: bool) -> str:
    return ResultsPage(project, project.paths.report, **arguments).text({"format": 1})


@pytest.fixture(scope="module")
def page(shown: QuickProject) -> str:
    return page_text(Project(shown.root / "config.yaml"))


@pytest.fixture(scope="module")
def elements(page: str) -> Elements:
    return Elements(page)


def test_it_is_valid_html(page: str) -> None:
    assert [f"{error.line}: {error.code}" for error in JustHTML(page, collect_errors=True).errors] == []
    names = re.findall(r'\sid="([^"]+)"', page)
    assert len(names) == len({*names})


def test_it_needs_no_other_file(elements: Elements, page: str) -> None:
    for tag, attrs in elements.tags:
        for name in ADDRESSES:
            address = attrs.get(name)
            assert address is None or address.startswith(SAFE), (tag, name, address)
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in elements.tags}
    assert "@import" not in page
    assert not re.findall(r"url\((?!#)", page)


def test_it_says_how_to_install_what_trained_it(shown: QuickProject) -> None:
    """hv15 of a clone is on no package index."""
    lora = TrainedLoRA.read(ProjectPaths(shown.root))
    assert lora.installation == "pip install hv15==0.1.0 torch==2.9.0"
    commit, versions = "0123456789abcdef" * 2 + "01234567", '{"hv15": "0.1.0", "torch": "2.9.0+cpu"}'
    for told in (commit, "; rm -r ."):
        metadata = {**lora.metadata, "hv15.git_commit": told, "hv15.versions": versions}
        found = replace(lora, metadata=metadata).installation.partition(" #")[0].strip()
        of_a_clone = f"git checkout {commit} && pip install -e . torch==2.9.0"
        assert found == (of_a_clone if told == commit else "pip install hv15==0.1.0 torch==2.9.0")


def test_it_has_all_sections(elements: Elements) -> None:
    assert [attrs["id"] for attrs in elements.named("section")] == SECTIONS
    links = [attrs["href"] for attrs in elements.named("a")]
    assert links == [f"#{section}" for section in SECTIONS]
    assert [label for attrs in elements.named("svg") if (label := attrs.get("aria-label"))] == CHARTS


def test_texts_of_people_are_texts(elements: Elements, page: str) -> None:
    assert "<b>" not in page
    assert "<script" not in page
    assert elements.text.count(HOSTILE) >= 4, "title (twice), description, prompt"
    assert "it moves <now>." in elements.text


def test_it_says_what_was_trained(elements: Elements) -> None:
    words = f"for text-to-video with HunyuanVideo 1.5 (480p_t2v), trained for {STEPS} steps on 5 clips of up to"
    assert f"A LoRA of rank 4 {words} 9 frames and 96 {TIMES} 64 pixels, in 80 s on NVIDIA H200." in elements.text
    for number in ("Steps 40 4.0 epochs", "Rank, alpha 4, 4", "Loss 0.25 at the start 0.5", "Memory 12 GiB peak"):
        assert number in elements.text
    assert "Best validation 0.4422 at step 40" in elements.text
    assert "training finished on 2027-01-15" in elements.text


def test_each_prompt_is_shown_without_and_with_the_lora(elements: Elements) -> None:
    videos = [attrs["aria-label"] for attrs in elements.named("video")]
    assert videos == [f"{name} {how} the LoRA" for name in ("one", "two") for how in ("without", "with")]
    for attrs in elements.named("video"):
        assert str(attrs["src"]).startswith("data:video/mp4;base64,")
        assert str(attrs["poster"]).startswith("data:image/jpeg;base64,")
    assert f"5 frames of 64 {TIMES} 64 pixels, 1 step, guidance 6, shift 5, seed 123" in elements.text


def test_settings_that_differ_come_first(elements: Elements) -> None:
    head, _, all_of_them = elements.text.partition("settings of the training")
    differ = head.partition("settings that differ from the defaults")[2]
    assert "train.learning_rate 0.0002 0.0001" in differ
    assert "train.optimizer_type AdamW AdamW8bit" in differ
    assert "train.seed" not in differ
    assert "train.seed" in all_of_them
    assert "datasets[0].target_frames [9]" in differ


def test_captions_are_told_in_numbers_only(elements: Elements) -> None:
    assert re.search(r"trained 4 videos 4 9 64 . 64 4: 15 to \d+ characters, median 15", elements.text)
    assert re.search(r"validation 1 video 1 9 64 . 64 1: \d+ to \d+ characters", elements.text)
    assert "a dog that runs" not in elements.text


def test_with_full_metadata_captions_and_places_are_told(page_of: Project) -> None:
    project = Project(page_of.config, {"convert": {"metadata": "full"}, "train": {"learning_rate": 0.0002}})
    text = Elements(page_text(project)).text
    assert "a dog that runs" in text
    assert f"a cat, {HOSTILE}" in text


def test_no_folder_of_this_machine_is_told(page: str, shown: QuickProject) -> None:
    assert str(shown.root.parent) not in page
    assert str(Path.home()) not in page


def test_large_videos_are_linked(page_of: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Inliner, "most_of_a_file", 10)
    made = ResultsPage(page_of, page_of.paths.report)
    made._inliner.most_of_a_file = 10
    found = Elements(made.text())
    assert [attrs["src"] for attrs in found.named("video")][:2] == ["samples/one.base.mp4", "samples/one.mp4"]
    assert "4 files are not on this page" in found.text


@pytest.mark.slow
def test_equal_results_give_an_equal_page(page: str, shown: QuickProject) -> None:
    assert page_text(Project(shown.root / "config.yaml")) == page


def test_the_sheet_of_all_checkpoints_is_shown_if_it_is_there(page_of: Project) -> None:
    from hv15.data.encode import write_image, write_video
    from tests.report.conftest import moving

    page_of.paths.all_checkpoints.mkdir(parents=True, exist_ok=True)
    write_image(page_of.paths.checkpoint_sheet, moving((1, 2, 3))[0])
    write_video(page_of.paths.checkpoint_film, moving((1, 2, 3)))
    found = Elements(page_text(page_of, grid=True))
    assert "checkpoints" in [attrs["id"] for attrs in found.named("section")]
    assert len(found.named("video")) == 5
    assert str(found.named("img")[0]["src"]).startswith("data:image/png;base64,")


def test_without_records_of_the_training_the_rest_is_shown(page_of: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    page_of.paths.metrics.unlink()
    page_of.paths.summary.unlink()
    found = Elements(page_text(page_of))
    assert [attrs["id"] for attrs in found.named("section")] == SECTIONS[1:]
    assert f"trained for {STEPS} steps on 5 clips" in found.text


def test_of_an_earlier_step_nothing_is_told_that_came_later(page_of: Project) -> None:
    """With `train.publish_step`: neither the loss of the last steps, nor a validation after that step."""
    lora = page_of.paths.lora
    write_safetensors(lora, {**read_header(lora).metadata, "hv15.steps": "20"})
    found = Elements(page_text(page_of)).text
    assert "Best validation" in found
    assert "at step 20" in found
    assert f"at step {STEPS}" not in found
    assert "trained for 20 steps on 5 clips" in found
    assert f"a step, of all {STEPS} steps" in found


def test_a_project_that_only_samples_has_a_page_too(page_of: Project) -> None:
    only = Project(page_of.config, {"datasets": []})
    for name in ("one", "two"):
        (only.paths.samples / f"{name}.base.mp4").unlink()
    found = Elements(page_text(only))
    assert [attrs["id"] for attrs in found.named("section")] == ["samples", "provenance"]
    assert len(found.named("video")) == 2
    assert found.named("figcaption") == []
