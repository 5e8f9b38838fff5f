"""Where the files of a project are."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path, PurePath

import pytest

from hv15.records.comparison_paths import ComparisonPaths
from hv15.records.paths import MANIFESTS, ProjectPaths, config_file, manifest_name, project_of

NAMED = {
    "config": "config.yaml",
    "project_lock": "hv15.lock",
    "results": "results",
    "lora": "results/lora.safetensors",
    "samples": "results/samples",
    "contact_sheet": "results/samples/contact_sheet.png",
    "sample_grid": "results/samples/grid.png",
    "sample_film": "results/samples/grid.mp4",
    "all_checkpoints": "results/checkpoints",
    "checkpoint_sheet": "results/checkpoints/grid.png",
    "checkpoint_film": "results/checkpoints/grid.mp4",
    "again": "results/again",
    "untaken": "results/samples/.untaken",
    "plan": "results/plan.txt",
    "report": "results/report.html",
    "card": "results/README.md",
    "checked_models": "results/models.json",
    "trained": "results/train.safetensors",
    "training": "results/train",
    "metrics": "results/train/metrics.jsonl",
    "training_lock": "results/train.lock",
    "states": "results/train/state",
    "origin": "results/train/origin",
    "checkpoints": "results/train/checkpoints",
    "best": "results/train/checkpoints/best.safetensors",
    "previews": "results/train/previews",
    "sample_now": "results/train/sample-now",
    "summary": "results/train/summary.json",
    "curves": "results/train/curves",
    "tensorboard": "results/train/tensorboard",
    "wandb": "results/train/wandb",
    "trained_dataset": "results/train/dataset.json",
    "reproduced_config": "results/config.yaml",
    "reproduced_dataset": "results/dataset.json",
    "reproduction_record": "results/reproduction.json",
    "specs": "results/specs",
    "all_manifests": "results/manifests",
    "logs": "results/logs",
    "benchmarks": "results/benchmarks",
    "hidden": ".hv15",
    "lock": ".hv15/run.lock",
    "runs": ".hv15/runs",
    "recorded_products": ".hv15/told.json",
    "complete_encodings": ".hv15/complete.json",
    "passed_checks": ".hv15/looks.json",
    "trials": ".hv15/dry-run",
    "no_spec": ".hv15/dry-run/none.json",
    "job_requests": ".hv15/requests.json",
}
"""Names that people, scripts and other programs know; the README lists those of a finished project."""

OF_THE_PROJECT = {
    *("config", "project_lock", "hidden", "lock", "runs", "recorded_products", "complete_encodings", "passed_checks"),
    *("job_requests", "trials", "no_spec"),
}
"""What the experiments of a project share."""


def properties() -> set[str]:
    return {name for name, value in vars(ProjectPaths).items() if isinstance(value, property)}


def test_the_names_are_these() -> None:
    assert properties() == NAMED.keys()
    assert {name: str(getattr(ProjectPaths(), name)) for name in NAMED} == NAMED


@pytest.mark.parametrize("name", NAMED)
def test_an_experiment_has_files_of_its_own(name: str) -> None:
    own = NAMED[name].replace("results", "results/rank-8", 1)
    expected = NAMED[name] if name in OF_THE_PROJECT else own
    assert str(getattr(ProjectPaths(Path("/p"), "rank-8"), name)) == f"/p/{expected}"


def test_experiments_are_compared_in_the_projects_own_folder() -> None:
    found = ProjectPaths(Path("/p"), "rank-8").comparison()
    assert found == ComparisonPaths(Path("/p/results"))
    names = [getattr(found, name).name for name, value in vars(ComparisonPaths).items() if isinstance(value, property)]
    assert all(name.startswith("comparison.") for name in names), "no experiment has such a name"
    assert len({*names}) == 7


def test_the_config_of_a_reproduction_is_one_of_its_project(tmp_path: Path) -> None:
    """So relative paths in it mean the same, and all that it makes is in a folder of its own."""
    work = ProjectPaths(tmp_path).reproduction("ab12")
    assert work.trained == tmp_path / "results/reproduced/ab12/train.safetensors"
    assert project_of(work.reproduced_config) == work
    assert project_of(tmp_path / "config.yaml") == project_of(tmp_path / "other.yaml") == ProjectPaths(tmp_path)


def test_names_with_a_wildcard() -> None:
    paths = ProjectPaths()
    assert str(paths.converted("{layout}")) == "results/lora.{layout}.safetensors"
    assert str(paths.condition("{name}")) == "results/samples/{name}.condition.safetensors"
    assert str(paths.log("encode_texts.{shard}")) == "results/logs/encode_texts.{shard}.log"
    assert str(paths.benchmark("train")) == "results/benchmarks/train.tsv"
    assert str(paths.failure(paths.log("train"))) == "results/logs/train.failure.json"
    assert str(paths.manifests("text")) == "results/manifests/text"


def test_a_sample_called_like_a_part_of_another_keeps_its_own_log() -> None:
    """Names may hold dots: only the last extension of a log's name is replaced."""
    paths = ProjectPaths()
    assert paths.failure(paths.log("sample_video.cat.base")).name == "sample_video.cat.base.failure.json"
    assert paths.failure(paths.log("sample_video.cat")) != paths.failure(paths.log("sample_video.cat.base"))


def test_specs_of_a_dry_run_are_beside_the_real_ones_never_over_them() -> None:
    paths = ProjectPaths(Path("p"), "rank-8")
    assert paths.spec("sample_video.a.b") == Path("p/results/rank-8/specs/sample_video.a.b.json")
    assert paths.trial_spec("sample_video.a.b") == Path("p/.hv15/dry-run/rank-8/sample_video.a.b.json")


def test_the_manifest_of_a_shard() -> None:
    assert manifest_name(3, 8) == "3-of-8.json"
    assert PurePath(manifest_name(3, 8)).match(MANIFESTS)


def test_a_project_is_its_folder_or_its_config(tmp_path: Path) -> None:
    assert config_file(tmp_path) == tmp_path / "config.yaml"
    assert config_file(tmp_path / "other.yaml") == tmp_path / "other.yaml"


def test_the_logs_of_all_jobs(tmp_path: Path) -> None:
    for name in ("logs/b.log", "logs/a.failure.json", "rank-8/logs/a.log"):
        (tmp_path / "results" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "results" / name).touch()
    paths = ProjectPaths(tmp_path)
    assert list(paths.all_logs()) == [paths.log("b"), ProjectPaths(tmp_path, "rank-8").log("a")]


def test_the_trainings_that_were_set_aside(tmp_path: Path) -> None:
    for name in ("train", "train-1234", "train-0123"):
        (tmp_path / "results" / name).mkdir(parents=True)
        (tmp_path / "results" / name / "metrics.jsonl").touch()
    found = ProjectPaths(tmp_path).set_aside()
    assert [path.parent.name for path in found] == ["train-0123", "train-1234"]


def written(tree: ast.AST) -> Iterator[str]:
    """The texts of a program, without docstrings: those say in words what the paths are."""
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value


def test_nothing_else_writes_a_path_of_a_result() -> None:
    repository = Path(__file__).parents[2]
    documentation = repository / "hv15/config/docs.py"
    files = {file for package in ("hv15", "tui") for file in (repository / package).rglob("*.py")} - {documentation}
    found = {
        f"{file.relative_to(repository)}: {text}"
        for file in files
        if "results/" in (source := file.read_text(encoding="utf-8"))
        for text in written(ast.parse(source))
        if "results/" in text
    }
    assert found == set()
