"""The table as CSV and LaTeX: what stands in it, escaped, and the same bytes each time."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest

from hv15.comparison.groups import Spread, TrainingComparison
from hv15.comparison.numbers import COLUMNS, VALIDATION_BEST, Scale, decimals, spread_text
from hv15.comparison.page import groups_table, trainings_table
from hv15.comparison.tables import groups_csv, latex_table, trainings_csv
from hv15.comparison.trainings import ComparedTraining, read_training
from tests.comparison.made_up import ablation, make_training


@pytest.fixture
def comparison(tmp_path: Path) -> TrainingComparison:
    return TrainingComparison(tuple(read_training(paths.run, paths) for paths in ablation(tmp_path)))


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_row_for_each_training_with_all_digits(comparison: TrainingComparison) -> None:
    found = rows(trainings_csv(comparison))
    assert [row["name"] for row in found] == [each.name for each in comparison.trainings]
    second = found[1]
    assert (second["train.discrete_flow_shift"], second["train.seed"]) == ("1.0", "2")
    assert float(second["validation_best"]) == 0.3 + 0.1 + 0.02
    assert (second["validation_best_step"], second["steps"], second["total_steps"]) == ("20", "20", "20")
    assert (float(second["train_seconds"]), float(second["memory_peak_bytes"])) == (40.0, 2.0**34)
    assert found[0].keys() >= {column.key for column in COLUMNS}


def test_a_row_for_each_group_with_mean_and_deviation(comparison: TrainingComparison) -> None:
    found = rows(groups_csv(comparison))
    assert [(row["trainings"], row["train.discrete_flow_shift"]) for row in found] == [("3", "1.0"), ("3", "3.0")]
    assert float(found[1]["validation_best_mean"]) == pytest.approx(0.62)
    assert float(found[1]["validation_best_std"]) == pytest.approx(0.01)


def test_what_is_not_finished_is_said(tmp_path: Path) -> None:
    """In the page's tables, in both CSV files, and beside the numbers of a paper."""
    places = [
        make_training(tmp_path, "a1", losses=(0.5,), seed=1),
        make_training(tmp_path, "a2", losses=(0.1,), seed=2, steps=10),
        make_training(tmp_path, "b1", losses=(0.2,), seed=1, network_dim=2, steps=10),
    ]
    comparison = TrainingComparison(tuple(read_training(paths.run, paths) for paths in places))
    assert [(row["steps"], row["total_steps"]) for row in rows(trainings_csv(comparison))] == [
        *(("20", "20"), ("10", "20"), ("10", "20"))
    ]
    found = rows(groups_csv(comparison))
    assert [(row["trainings"], row["counted"], row["validation_best_mean"]) for row in found] == [
        *(("2", "1", "0.5"), ("1", "0", ""))
    ]
    text = latex_table(comparison)
    assert "% not finished, so in no mean: a2, b1" in text.splitlines()
    assert [line.split(" & ")[1] for line in text.splitlines() if line.endswith("\\\\")][1:] == ["$0.5000$", "--"]
    groups, trainings = groups_table(comparison), trainings_table(comparison)
    assert [row.cells[1].text for row in groups.rows] == ["1 of 2", "0 of 1"]
    assert "of finished trainings alone" in groups.note
    steps = [cell.text for cell in trainings.header].index("Steps")
    assert [row.cells[steps].text for row in trainings.rows] == ["20", "10 of 20", "10 of 20"]


def test_settings_are_named_as_elsewhere_on_the_page() -> None:
    """In the legends of the curves and above the samples, by the trainings' names where the settings are too long."""
    trainings = tuple(
        ComparedTraining(name, {"train.optimizer_type": kind, "train.lr_scheduler": kind, "train.seed": seed}, steps=20)
        for name, kind, seed in (("a", "AdamW", 1), ("b", "AdamW", 2), ("c", "x" * 20, 1))
    )
    table = groups_table(TrainingComparison(trainings))
    assert [cell.text for cell in table.header][:3] == ["Experiment", "optimizer_type", "lr_scheduler"]
    assert [row.cells[0].text for row in table.rows] == ["optimizer_type AdamW, lr_scheduler AdamW", "c"]
    assert {len(row.cells) for row in table.rows} == {len(table.header)}


def test_what_a_spreadsheet_would_compute_is_text() -> None:
    trainings = tuple(
        ComparedTraining(f"run{n}", {"train.optimizer_type": text}) for n, text in enumerate(("=1+1", 'a"b,c'))
    )
    found = rows(trainings_csv(TrainingComparison(trainings)))
    assert [row["train.optimizer_type"] for row in found] == ["'=1+1", 'a"b,c']


def test_the_table_of_a_paper(comparison: TrainingComparison) -> None:
    text = latex_table(comparison)
    assert text == latex_table(comparison)
    body = text.partition("\\midrule\n")[2].partition("\\bottomrule")[0].splitlines()
    assert body[0].startswith(r"1 & $\mathbf{0.420} \pm 0.010$ &"), "the lowest is bold"
    assert body[1].startswith(r"3 & $0.620 \pm 0.010$ &")
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert columns is not None
    assert {line.count("&") + 1 for line in text.splitlines() if line.endswith("\\\\")} == {len(columns[1])}
    assert r"discrete\_flow\_shift" in text
    assert r"\usepackage{booktabs}" in text


def test_a_unit_is_no_comment_in_a_paper(comparison: TrainingComparison) -> None:
    """Behind a bare percent sign, LaTeX leaves the rest of a line out."""
    judged = TrainingComparison(tuple(replace(each, samples_right=0.5) for each in comparison.trainings))
    comment, *lines = latex_table(judged).splitlines()
    assert comment.startswith("% ")
    assert any(r"Samples right (\%)" in line for line in lines)
    assert not [line for line in lines if re.search(r"(?<!\\)%", line)]


def test_whatever_a_setting_holds_is_text_in_a_paper() -> None:
    hostile = ("a_b & 50% $x$ #1 {~^}", r"\input{/etc/passwd}")
    trainings = tuple(ComparedTraining(f"run{n}", {"train.x": text}) for n, text in enumerate(hostile))
    text = latex_table(TrainingComparison(trainings))
    assert r"a\_b \& 50\% \$x\$ \#1 \{\tex" in text
    assert r"\input" not in text


@pytest.mark.parametrize(
    ("spreads", "factor", "digits"),
    [
        ([Spread(0.4217, 0.0123, 3)], 1.0, 3),
        ([Spread(0.4217, 0.0123, 3), Spread(0.5, 0.0021, 3)], 1.0, 4),
        ([Spread(0.4217, 0.0, 3)], 1.0, 4),
        ([Spread(0.4217, 1e-9, 3)], 1.0, 5),
        ([Spread(123.4, 1.7, 3)], 1.0, 1),
        ([Spread(7200.0, 90.0, 3)], 1 / 3600, 3),
        ([None, Spread(0.5, None, 1)], 1.0, 4),
        ([None], 1.0, 3),
    ],
)
def test_a_deviation_has_two_digits(spreads: list[Spread | None], factor: float, digits: int) -> None:
    assert decimals(VALIDATION_BEST, spreads, factor) == digits


def test_times_and_whole_numbers_have_few_digits() -> None:
    columns = {column.key: column for column in COLUMNS}
    assert decimals(columns["train_seconds"], [Spread(45.03, 0.07, 3)]) == 1
    assert decimals(columns["validation_best_step"], [Spread(330.0, 51.96, 3)]) == 0


def test_numbers_with_their_deviation() -> None:
    assert spread_text(Spread(0.42171, 0.01234, 3), 3) == "0.422 ± 0.012"
    assert spread_text(Spread(120.0, None, 1), 1, 1 / 60) == "2.0"
    assert spread_text(None, 3) == ""


def test_seeds_that_agree_are_told_from_a_single_training() -> None:
    """In every table: a deviation of 0 is a result, of one training none is known."""
    trainings = tuple(
        ComparedTraining(f"{dim}-{seed}", {"train.network_dim": dim, "train.seed": seed}, steps=20, samples_right=0.5)
        for dim, seed in ((4, 1), (4, 2), (8, 1))
    )
    comparison = TrainingComparison(trainings)
    body = latex_table(comparison).partition("\\midrule\n")[2].splitlines()[:2]
    assert body == [r"4 & $50 \pm 0$ \\", r"8 & $50$ \\"]
    assert [row["samples_right_std"] for row in rows(groups_csv(comparison))] == ["0.0", ""]
    table = groups_table(comparison)
    titles = [cell.text for cell in table.header]
    shown = [dict(zip(titles, (cell.text for cell in row.cells), strict=True)) for row in table.rows]
    assert [row["Samples right, %"] for row in shown] == ["50 ± 0", "50"]
    assert [row["Steps"] for row in shown] == ["20", "20"], "the settings decide them, not the seed"


def test_the_unit_is_one_in_which_all_numbers_can_be_read() -> None:
    times = next(column for column in COLUMNS if column.key == "train_seconds")
    units = [
        times.scale([ComparedTraining("a", {}, train_seconds=seconds), ComparedTraining("b", {}, train_seconds=9e4)])
        for seconds in (30.0, 600.0, 9000.0)
    ]
    assert [unit.unit for unit in units] == ["s", "min", "h"]
    assert times.scale([ComparedTraining("a", {})]) == Scale("s", 1.0)
