"""The runs of a project that are found in its folder."""

from __future__ import annotations

from pathlib import Path

from hv15.records.found_runs import begun_experiments, reproductions, runs_with_samples, trained_experiments
from hv15.records.paths import ProjectPaths


def test_the_experiments_that_were_trained(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"results/{name}/train").mkdir(parents=True)
        (tmp_path / f"results/{name}/train/metrics.jsonl").touch()
    (tmp_path / "results/never/train").mkdir(parents=True)
    (tmp_path / "results/train").mkdir()
    (tmp_path / "results/train/metrics.jsonl").touch()
    assert [*trained_experiments(tmp_path)] == [ProjectPaths(tmp_path, "a"), ProjectPaths(tmp_path, "b")]


def test_the_project_and_the_experiments_that_have_samples(tmp_path: Path) -> None:
    for folder in ("samples", "b/train/previews", "a/samples", "never/train"):
        (tmp_path / "results" / folder).mkdir(parents=True)
    paths = ProjectPaths(tmp_path)
    assert [*runs_with_samples(tmp_path)] == [paths, ProjectPaths(tmp_path, "a"), ProjectPaths(tmp_path, "b")]


def test_the_experiments_of_which_anything_was_planned_or_encoded(tmp_path: Path) -> None:
    for folder in ("b/manifests", "a/specs", "never/samples", "specs", "manifests"):
        (tmp_path / "results" / folder).mkdir(parents=True)
    assert [*begun_experiments(tmp_path)] == [ProjectPaths(tmp_path, "a"), ProjectPaths(tmp_path, "b")]


def test_a_reproduction_is_no_experiment(tmp_path: Path) -> None:
    work = ProjectPaths(tmp_path).reproduction("ab12")
    for folder in (work.training, work.specs, work.samples):
        folder.mkdir(parents=True)
    work.metrics.touch()
    assert [*reproductions(tmp_path)] == [work]
    assert [*trained_experiments(tmp_path)] == [*begun_experiments(tmp_path)] == []
    assert [*runs_with_samples(tmp_path)] == [ProjectPaths(tmp_path)]
