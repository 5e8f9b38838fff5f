"""The sheets that compare samples: which stand in which row and column."""

from __future__ import annotations

from pathlib import Path

import pytest

from hv15.config.sample_columns import NO_LORA
from hv15.project.grids import grid_rows, sample_rows
from hv15.project.products import products
from hv15.records.paths import ProjectPaths
from hv15.records.problems import ConfigError
from tests.project.conftest import MakeProject
from tests.project.test_comparison import lora

PATHS, FOLDER = ProjectPaths(), Path("results/samples")
PROMPTS = [
    {"name": "cat", "prompt": "a cat", "seeds": [1, 2]},
    {"name": "dog", "prompt": "a dog", "output_type": "images"},
    {"name": "cow", "prompt": "a cow", "output_type": "latent"},
]


def test_strengths_and_loras_of_each_prompt_and_seed(open_project: MakeProject, root: Path) -> None:
    compare = [{"path": lora(root / "style.safetensors"), "multiplier": 2}]
    sample = {"prompts": PROMPTS, "strengths": [0.5, 1], "compare": compare, "with_base": True, "lora_multiplier": 0.5}
    project = open_project(sample=sample)
    rows = sample_rows(project.settings, project.samples, PATHS)
    assert [row.prompt for row in rows] == ["seed 1: a cat", "seed 2: a cat", "a dog"]
    labels = [NO_LORA, "this LoRA x 0.5", "this LoRA x 1", "style x 0.5", "style x 1"]
    assert [[cell.label for cell in row.cells] for row in rows] == [labels] * 3
    assert [cell.file for cell in rows[1].cells] == [
        FOLDER / f"cat.seed2.{end}.mp4" for end in ("base", "x0.5", "x1", "with-style.x0.5", "with-style.x1")
    ]
    used = [project.samples[cell.sample] for cell in rows[1].cells]
    assert [spec.lora_multiplier for spec in used] == [None, 0.25, 0.5, None, None]
    assert [[each.multiplier for each in spec.loras] for spec in used] == [[], [], [], [1.0], [2.0]]
    assert {spec.seed for spec in used} == {2}
    made = products(project.settings, project.samples, project.enlarged, PATHS)
    assert [file for file in made if file.stem == "grid"] == [FOLDER / "grid.png", FOLDER / "grid.mp4"]
    assert PATHS.contact_sheet not in made


def test_a_strength_of_zero_is_the_column_without_a_lora(open_project: MakeProject) -> None:
    project = open_project(sample={"prompts": PROMPTS[1:2], "strengths": [0, 1], "with_base": True})
    (row,) = sample_rows(project.settings, project.samples, PATHS)
    assert [cell.label for cell in row.cells] == [NO_LORA, "strength 1"]
    assert project.samples["dog.x0"].lora_multiplier is None


def test_the_sheet_of_checkpoints_has_a_row_for_each_strength(open_project: MakeProject) -> None:
    project = open_project(sample={"prompts": PROMPTS[1:2], "strengths": [0.5, 1], "with_base": True})
    rows = grid_rows(project.samples, PATHS, [10, 20])
    assert [row.prompt for row in rows] == ["strength 0.5: a dog", "strength 1: a dog"]
    assert [[cell.label for cell in row.cells] for row in rows] == [[NO_LORA, "step 10", "step 20"]] * 2
    assert [str(cell.file) for cell in rows[0].cells] == [
        "results/samples/dog.base.frames",
        "results/checkpoints/10/dog.x0.5.frames",
        "results/checkpoints/20/dog.x0.5.frames",
    ]


def test_previews_show_the_full_strength(open_project: MakeProject) -> None:
    for strengths, shown in (([0, 0.5, 1], "one.x1"), ([0, 0.5], "one.x0.5"), ([0], "one.x0"), ([], "one")):
        assert [each.name for each in open_project(sample={"strengths": strengths}).previews] == [shown]


def test_without_a_lora_strengths_have_no_effect(open_project: MakeProject) -> None:
    with pytest.raises(ConfigError, match=r"sample\.strengths: has no effect"):
        open_project(datasets=[], sample={"strengths": [0.5, 1]})
