"""When the page of all results is made again: with what it shows, or alone; and Snakemake's own report."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from hv15.project import Project
from hv15.records import formats
from hv15.workflow import make_planner
from hv15.workflow.why import Reasons
from tests.workflow.finished import finish, open_project
from tests.workflow.quick import QuickProject

EVERYTHING = ("all",)
PRODUCTS = ("report", "card")


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> QuickProject:
    """A project on which everything was made, the page and the card too."""
    project = QuickProject.make(tmp_path_factory.mktemp("complete") / "project")
    project.set(convert={"formats": ["comfyui"]})
    finish(project, *EVERYTHING)
    return project


@pytest.fixture
def project(complete: QuickProject, tmp_path: Path) -> QuickProject:
    copied = complete.copied(tmp_path / "project", everything=True)
    assert due(copied) == {}
    return copied


def due(project: QuickProject, *targets: str) -> dict[str, list[str]]:
    """Stage -> why it runs."""
    opened = open_project(project)
    found = Reasons(opened, make_planner(opened, targets=targets or EVERYTHING)).due()
    return {stage.name: list(stage.reasons) for stage in found.stages}


def test_a_new_format_makes_each_alone(project: QuickProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "REPORT", formats.REPORT + 1)
    assert due(project) == {"report": ["hv15 writes reports in a new way"]}
    assert due(project, "results/lora.safetensors") == {}
    monkeypatch.setattr(formats, "CARD", formats.CARD + 1)
    assert due(project)["card"] == ["hv15 writes model cards in a new way"]


def test_what_they_say_makes_them_again(project: QuickProject) -> None:
    project.set(convert={"title": "Zorpward"})
    assert due(project) == {
        "convert.comfyui": ["convert: says something else about it"],
        "publish": ["comfyui is new"],
        "report": ["convert: says something else about it", "the LoRA is new"],
        "card": ["convert: says something else about it", "the LoRA is new", "comfyui is new"],
    }
    finish(project, *EVERYTHING)
    project.set(convert={"gallery": ["one"]})
    assert due(project) == {"card": ["other samples are shown (convert.gallery)"]}


def test_a_lora_that_is_made_again_is_shown_again(project: QuickProject) -> None:
    """Even from the same spec: the times of its training are other ones."""
    for name in ("results/train.safetensors", "results/lora.safetensors"):
        (project.root / name).unlink()
    found = due(project)
    assert {"train", "publish", *PRODUCTS} <= found.keys()
    assert found["report"] == ["the LoRA is new"]


def test_a_sample_that_is_made_again_is_shown_again(project: QuickProject) -> None:
    (project.root / "results/samples/one.mp4").unlink()
    assert due(project)["report"] == ["the LoRA is new", "one is new"]


@pytest.mark.parametrize(
    "settings",
    [
        {"runtime": {"log_level": "debug"}},
        {"train": {"preview_every_n_steps": 1}},
        {"cache": {"workers": 3}},
        {"sample": {"blocks_to_swap": 1}},
    ],
    ids=str,
)
def test_settings_that_change_no_result_make_no_page_again(project: QuickProject, settings: dict[str, object]) -> None:
    project.set(**settings)
    assert due(project) == {}


def test_the_sheet_of_the_checkpoints_comes_to_the_page(project: QuickProject) -> None:
    finish(project, "checkpoint_grid")
    assert due(project) == {"report": ["the samples of the checkpoints are new"]}
    finish(project, *EVERYTHING)
    assert due(project) == {}
    (project.root / "results/checkpoints/grid.png").unlink()
    assert due(project) == {"report": ["the samples of the checkpoints are new"]}


def test_a_sheet_that_is_asked_for_in_the_same_call_is_waited_for(project: QuickProject) -> None:
    both = ("all", "checkpoint_grid")
    assert due(project, *both)["report"] == ["the samples of the checkpoints are new"]
    planner = make_planner(open_project(project), targets=both)
    assert planner.running.index("checkpoint_grid") < planner.running.index("report")
    finish(project, *both)
    assert due(project, *both) == {}
    assert due(project) == {}


@pytest.mark.parametrize("name", ["report.html", "README.md"])
def test_a_torn_page_is_made_again(project: QuickProject, name: str) -> None:
    page = project.root / "results" / name
    page.write_text(page.read_text()[:-4])
    stage = "report" if name == "report.html" else "card"
    assert due(project) == {stage: [f"{name} cannot be read"]}


def test_a_project_that_only_samples_has_a_page_and_no_card(project: QuickProject) -> None:
    project.set(datasets=[])
    stages = make_planner(Project(project.root / "config.yaml"), targets=EVERYTHING).stages
    assert "report" in stages
    assert "card" not in stages
    finish(project, *EVERYTHING)
    assert due(project) == {}


def test_an_experiment_has_a_page_and_a_card_of_its_own(project: QuickProject) -> None:
    project.set(experiments={"small": {"train.network_dim": 2}})
    assert due(project) == {}, "nobody asked for the experiment"
    for name, stage in (("report.html", "small/report"), ("README.md", "small/card")):
        found = due(project, f"results/small/{name}")
        assert {"small/train", "small/publish", stage} <= found.keys()
        assert found[stage] == ["not made yet"]
    said = project.snakemake("-n", target="results/small/report.html").output
    assert "small: Putting all results on one page: not made yet" in said


def test_snakemake_makes_them_and_a_report_of_its_own(project: QuickProject, tmp_path: Path) -> None:
    for name in ("report.html", "README.md"):
        (project.root / "results" / name).unlink()
    made = project.snakemake(target="results/lora.safetensors")
    assert made.code == 0, made.output
    assert not made.jobs
    made = project.snakemake(target="all")
    assert made.code == 0, made.output
    assert made.jobs == {"stage report": 1, "stage card": 1}
    assert "Nothing to be done" in project.snakemake("-n", target="all").output

    packed = tmp_path / "packed.zip"
    made = project.snakemake("--report", str(packed), target="all")
    assert made.code == 0, made.output
    with zipfile.ZipFile(packed) as file:
        names = {Path(name).name for name in file.namelist()}
        [index] = [name for name in file.namelist() if name.endswith("packed/report.html")]
        page = file.read(index).decode()
    assert {"one.mp4", "report.html"} <= names
    for words in ('"Samples"', '"Report"', "is sampled", "Everything about the LoRA on one page"):
        assert words in page, words
