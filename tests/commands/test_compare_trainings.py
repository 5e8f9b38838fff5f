"""`hv15 compare-trainings`: the table that it prints, the files that it writes, what it refuses."""

from __future__ import annotations

from pathlib import Path

from tests.commands.workbench import hv15, is_a_refusal
from tests.comparison.made_up import ablation, make_training


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
