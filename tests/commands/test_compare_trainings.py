"""`hv15 compare-trainings`: the table that it prints, the files that it writes, what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from hv15.comparison.charts import make_charts
from hv15.project.metadata import product_made_from
from hv15.records.comparison import ComparisonDetails
from hv15.records.json_values import JsonObject
from hv15.records.spec import Spec
from tests.commands.workbench import hv15, is_a_refusal
from tests.comparison.made_up import ablation, make_training


@pytest.fixture(autouse=True)
def one_chart(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them (tests/comparison) take as long as the rest."""
    monkeypatch.setattr("hv15.comparison.written.make_charts", lambda comparison: make_charts(comparison)[:1])


def test_the_table_is_printed_and_files_only_if_asked(tmp_path: Path) -> None:
    ablation(tmp_path / "project", seeds=(1, 2))
    before = {*tmp_path.rglob("*")}
    said = hv15("compare-trainings", tmp_path / "project")
    assert said.code == 0, said.err
    rows = said.out.splitlines()
    assert rows[0].split()[:3] == ["Experiment", "discrete_flow_shift", "seed"]
    assert rows[1].startswith("shift-1_seed-1")
    assert rows[1].endswith("(best)")
    assert "0.4150 ± 0.0071" in said.out
    assert "4 trainings, 2 settings with several seeds, which differ in discrete_flow_shift" in said.out
    assert {*tmp_path.rglob("*")} == before
    out = tmp_path / "out"
    said = hv15("compare-trainings", tmp_path / "project", "--out", out)
    assert said.code == 0, said.err
    assert {"comparison.html", "comparison.csv", "comparison.groups.csv", "comparison.tex"} <= {
        file.name for file in out.iterdir()
    }
    assert f"{out}/comparison.html: " in said.err


def test_single_experiments_of_several_projects(tmp_path: Path) -> None:
    make_training(tmp_path / "one", "fast", learning_rate=1e-3)
    make_training(tmp_path / "two", learning_rate=1e-4)
    said = hv15("compare-trainings", tmp_path / "one/results/fast", tmp_path / "two")
    assert [row.split()[:2] for row in said.out.splitlines()[1:3]] == [["fast", "0.001"], ["two", "0.0001"]]


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    is_a_refusal(hv15("compare-trainings", tmp_path), ("nothing was trained here",))
    make_training(tmp_path / "project")
    (tmp_path / "file").write_text("")
    said = hv15("compare-trainings", tmp_path / "project", "--out", tmp_path / "file")
    is_a_refusal(said, ("expected a folder, found a file",))


def test_experiments_are_compared_as_their_spec_says(tmp_path: Path) -> None:
    ablation(tmp_path, shifts=(1.0, 3.0), seeds=(1,))
    names = ("shift-3_seed-1", "shift-1_seed-1")
    settings: dict[str, JsonObject] = {name: {"sample.guidance_scale": place} for place, name in enumerate(names)}
    spec = tmp_path / "results/specs/comparison.json"
    Spec({"format": 1}, ComparisonDetails(names, settings, has_samples=False).to_json()).write(spec)
    config, page = tmp_path / "config.yaml", tmp_path / "results/comparison.html"
    said = hv15("stage", "comparison", config, "--spec", spec, "--out", page)
    assert said.code == 0, said.err
    assert "The lowest validation loss is that of discrete_flow_shift 1, sample.guidance_scale 1" in said.err
    assert product_made_from(page) == {"format": 1}
    table = (tmp_path / "results/comparison.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in table[1:]] == [*names]
    Spec({}, {}).write(spec)
    is_a_refusal(hv15("stage", "comparison", config, "--spec", spec, "--out", page), ("not the spec of a comparison",))
