"""The comparison of experiments in the workflow: when it is made, of what, and when it is made again."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from hv15.errors import UserError
from hv15.records.comparison import ComparisonDetails
from hv15.records.paths import ProjectPaths
from hv15.workflow.comparing import comparison_changes
from hv15.workflow.planner import Planner
from tests.workflow.finished import finish, why
from tests.workflow.quick import QuickProject
from tests.workflow.test_experiments import plan, with_experiments

ALL = "experiments"
FILES = ProjectPaths().comparison()
SEEDS: dict[str, dict[str, object]] = {name: {"train.seed": seed} for name, seed in (("one", 1), ("two", 2))}


@pytest.fixture
def project(tmp_path: Path) -> QuickProject:
    project = QuickProject.make(tmp_path / "project")
    project.set(experiments=SEEDS)
    return project


def details(planner: Planner) -> ComparisonDetails:
    return ComparisonDetails.from_json(planner.stages["comparison"].details)


def test_it_comes_with_all_experiments_or_alone(project: QuickProject) -> None:
    for target in (ALL, "comparison", str(FILES.page), str(FILES.film), str(FILES.latex)):
        planner = plan(project, target)
        assert "comparison" in planner.due
        assert {"one/publish", "two/publish"} <= planner.due, "it is of finished experiments"
        assert "train" not in planner.due, "not of the base config"
    for target in ("results/lora.safetensors", "results/one/lora.safetensors"):
        assert "comparison" not in plan(project, target).stages


def test_one_experiment_is_not_compared(project: QuickProject) -> None:
    with_experiments(project, {"one": {"train.seed": 1}})
    assert "comparison" not in plan(project, ALL).stages
    with_experiments(project, {})
    with pytest.raises(UserError, match="the config has no experiments"):
        plan(project, "comparison")


def test_samples_stand_side_by_side_if_all_begin_from_the_same_noise(project: QuickProject) -> None:
    planner = plan(project, ALL)
    assert {FILES.sheet, FILES.film} <= {*planner.stages["comparison"].products}
    assert details(planner).experiments == ("one", "two")
    with_experiments(project, {**SEEDS, "wide": {"sample.video_size": [64, 128]}})
    planner = plan(project, ALL)
    assert not {FILES.sheet, FILES.film} & {*planner.stages["comparison"].products}
    assert not details(planner).has_samples
    with_experiments(project, SEEDS, sample={"output_type": "latent"})
    assert not details(plan(project, ALL)).has_samples


def test_experiments_with_other_clips_have_samples_from_the_same_noise(project: QuickProject) -> None:
    """Those whose samples have other names, or other noise, have none in common."""
    with_experiments(project, {**SEEDS, "few": {"datasets[0].max_num_samples": 2}})
    assert details(plan(project, ALL)).has_samples
    for changes in ({"sample.strengths": [0.5, 1]}, {"sample.seeds": [1]}, {"datasets": []}):
        with_experiments(project, {**SEEDS, "other": changes})
        assert not details(plan(project, ALL)).has_samples, changes


def test_settings_of_samples_are_told_where_they_differ(project: QuickProject) -> None:
    with_experiments(project, {"weak": {"sample.guidance_scale": 2}, "strong": {"sample.guidance_scale": 6}})
    found = details(plan(project, ALL))
    assert found.settings == {
        "weak": {"sample.guidance_scale": 2.0},
        "strong": {"sample.guidance_scale": 6.0},
    }
    assert found.has_samples


def test_it_is_made_again_when_an_experiment_is(project: QuickProject) -> None:
    finish(project, ALL)
    assert why(project, ALL) == {}
    with_experiments(project, {**SEEDS, "two": {"train.seed": 3}})
    assert why(project, ALL)["comparison"] == ["two has another LoRA"]
    with_experiments(project, {**SEEDS, "three": {"train.seed": 3}})
    assert why(project, ALL)["comparison"] == ["three is new"]
    with_experiments(project, SEEDS, sample={"infer_steps": 2})
    assert why(project, ALL)["comparison"] == ["samples of one", "samples of two"]


def test_another_order_is_a_reason_too() -> None:
    before, now = ({"experiments": [[name, "lora", {}] for name in names]} for names in (("a", "b"), ("b", "a")))
    assert [*comparison_changes(before, now)] == ["the experiments are in another order"]
    assert [*comparison_changes(before, before)] == []
    assert [*comparison_changes({**before, "format": 1}, {**before, "format": 2})] == [
        "hv15 compares experiments in a new way"
    ]


def test_it_is_made_again_when_one_of_its_files_is_lost(project: QuickProject) -> None:
    finish(project, ALL)
    for file in (FILES.table, FILES.film, FILES.page):
        kept = (project.root / file).read_bytes()
        (project.root / file).unlink()
        assert why(project, ALL).keys() == {"comparison"}
        (project.root / file).write_bytes(kept)
    assert why(project, ALL) == {}


@pytest.mark.slow
def test_snakemake_makes_it_after_the_experiments(project: QuickProject) -> None:
    outcome = project.snakemake(target=ALL)
    assert outcome.code == 0, outcome.output
    assert outcome.jobs["stage comparison"] == 1
    assert "Comparing the experiments: not made yet" in outcome.output
    assert "Nothing to be done" in project.snakemake(target=ALL).output
    packed = project.root / "report.zip"
    outcome = project.snakemake("--report", str(packed), target=ALL)
    assert outcome.code == 0, outcome.output
    with zipfile.ZipFile(packed) as file:
        names = {Path(name).name for name in file.namelist()}
    assert {FILES.page.name, FILES.film.name, FILES.sheet.name, FILES.table.name} <= names
    (project.root / FILES.page).unlink()
    outcome = project.snakemake(target=str(FILES.latex))
    assert (outcome.code, dict(outcome.jobs)) == (0, {"stage comparison": 1}), outcome.output
