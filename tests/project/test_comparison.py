"""What `hv15 sample` makes as a table: which samples, which columns, which names of files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hv15.config.sample_columns import COMMON, NO_LORA
from hv15.errors import UserError
from hv15.project import Project
from hv15.project.comparison import Compared, make_table
from hv15.project.request import SampleRequest, open_project
from hv15.records.paths import copy_of_step
from tests.project.conftest import MakeProject


def lora(path: Path) -> str:
    """A file that is a LoRA as far as its name and its content are concerned."""
    header = json.dumps({"__metadata__": {"name": str(path)}}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return str(path)


@pytest.fixture
def asked(open_project: MakeProject, root: Path) -> Any:
    """Open the project that a request makes, beside one on disk."""
    open_project()

    def asked(*prompts: str, **request: Any) -> Project:
        return _opened(root, SampleRequest(prompts=prompts, **request))

    return asked


def _opened(root: Path, request: SampleRequest) -> Project:
    return open_project(root / "config.yaml", {}, request)


def strengths(project: Project, compared: Compared) -> dict[str, list[tuple[str, float]]]:
    """Of the first row, by column: the names and strengths of its LoRAs."""
    table = make_table(project, compared)
    samples = table.rows[0].samples
    return {
        label: [(Path(each.path).stem, each.multiplier) for each in spec.loras]
        for label, spec in zip(table.columns, samples, strict=True)
    }


def test_without_anything_to_compare_there_is_one_column(asked: Any) -> None:
    table = make_table(asked("a cat", "a dog", seeds=(1, 2)), Compared())
    assert table.columns == ("",)
    assert [row.title for row in table.rows] == [
        "seed 1: a cat",
        "seed 2: a cat",
        "seed 1: a dog",
        "seed 2: a dog",
    ]
    names = [spec.name for spec in table.samples()]
    assert [name.rpartition("-")[0] for name in names] == ["a-cat-seed1", "a-cat-seed2", "a-dog-seed1", "a-dog-seed2"]
    by_seed = table.by_seed()
    assert by_seed.columns == ("seed 1", "seed 2")
    assert [(row.title, [spec.seed for spec in row.samples]) for row in by_seed.rows] == [
        ("a cat", [1, 2]),
        ("a dog", [1, 2]),
    ]


def test_strengths_are_factors_for_all_loras_of_the_samples(asked: Any, tmp_path: Path) -> None:
    project = asked("a cat", loras=(lora(tmp_path / "a.safetensors"), lora(tmp_path / "b.safetensors") + ":0.5"))
    assert strengths(project, Compared(strengths=(0.0, 0.5, 1.0))) == {
        NO_LORA: [],
        "strength 0.5": [("a", 0.5), ("b", 0.25)],
        "strength 1": [("a", 1.0), ("b", 0.5)],
    }


def test_compared_loras_stand_beside_those_of_all_samples(asked: Any, tmp_path: Path) -> None:
    project = asked("a cat", loras=(lora(tmp_path / "style.safetensors"),))
    compared = (lora(tmp_path / "a.safetensors"), lora(tmp_path / "b.safetensors") + ":0.8")
    assert strengths(project, Compared(compared, strengths=(0.0, 0.5, 1.0))) == {
        COMMON: [("style", 1.0)],  # which is not "no LoRA"
        "a x 0.5": [("style", 1.0), ("a", 0.5)],
        "a x 1": [("style", 1.0), ("a", 1.0)],
        "b x 0.5": [("style", 1.0), ("b", 0.4)],
        "b x 1": [("style", 1.0), ("b", 0.8)],
    }
    assert strengths(project, Compared(compared)) == {
        "a": [("style", 1.0), ("a", 1.0)],
        "b": [("style", 1.0), ("b", 0.8)],
    }


def test_the_same_sample_has_the_same_file_whatever_it_is_compared_with(asked: Any, tmp_path: Path) -> None:
    file = lora(tmp_path / "a.safetensors")
    (plain,) = make_table(asked("a cat"), Compared()).samples()
    compared = asked("a cat", loras=(file,))
    three = make_table(compared, Compared(strengths=(0.0, 0.5, 1.0))).samples()
    (one,) = make_table(compared, Compared(strengths=(0.5,))).samples()
    assert three[0] == plain
    assert three[1] == one
    assert len({spec.name for spec in three}) == 3


def test_samples_are_in_the_order_of_columns_so_that_loras_change_seldom(asked: Any, tmp_path: Path) -> None:
    table = make_table(asked("a cat", "a dog"), Compared((lora(tmp_path / "a.safetensors"),), strengths=(0.0, 1.0)))
    assert [(spec.prompt, len(spec.loras)) for spec in table.samples()] == [
        ("a cat", 0),
        ("a dog", 0),
        ("a cat", 1),
        ("a dog", 1),
    ]


def test_names_of_files_tell_loras_apart(asked: Any, tmp_path: Path) -> None:
    files = [lora(tmp_path / folder / "a.safetensors") for folder in ("one", "two")]
    files.append(lora(tmp_path / "lora-step000090.safetensors"))
    assert list(strengths(asked("a cat"), Compared(files))) == ["one/a", "two/a", "step 90"]
    assert list(strengths(asked("a cat"), Compared([files[0], files[0]]))) == ["one/a", "one/a (2)"]


def test_kept_steps_of_the_project(asked: Any, root: Path) -> None:
    folder = root / "results/train/checkpoints"
    for step in (100, 200):
        lora(folder / copy_of_step(step))
    lora(folder / "best.safetensors")
    assert list(strengths(asked("a cat"), Compared(steps=(200, 100)))) == ["step 200", "step 100"]
    with pytest.raises(UserError, match=r"--checkpoint 300: .* is not kept in .*: there are 100, 200"):
        make_table(asked("a cat"), Compared(steps=(300,)))


def test_a_prompts_own_name_begins_the_names_of_its_files(asked: Any, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"name": "Sea_1", "prompt": "the sea", "seed": 9}\n"the land"\n')
    names = [spec.name for spec in make_table(asked("a cat", prompts_file=file, seeds=(4, 5)), Compared()).samples()]
    assert [name.rpartition("-")[0] for name in names] == [
        "a-cat-seed4",
        "a-cat-seed5",
        "Sea_1-seed9",
        "the-land-seed4",
        "the-land-seed5",
    ]


def test_seeds_are_columns_only_if_all_prompts_have_the_same(asked: Any, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"name": "sea", "prompt": "the sea", "seed": 9}\n')
    table = make_table(asked("a cat", prompts_file=file, seeds=(4, 5)), Compared())
    assert table.by_seed() == table
    compared = make_table(asked("a cat", seeds=(4, 5)), Compared((lora(tmp_path / "a.safetensors"),)))
    assert compared.by_seed() == compared


def test_the_projects_own_prompts_are_not_sampled(asked: Any, root: Path) -> None:
    config = root / "config.yaml"
    config.write_text(config.read_text() + "  prompts_file: more.txt\n")
    (root / "more.txt").write_text("a dog")
    assert [spec.prompt for spec in make_table(asked("a cat"), Compared()).samples()] == ["a cat"]


@pytest.mark.parametrize(
    ("compared", "said"),
    [
        (Compared(strengths=(0.5,)), "--strength without a LoRA"),
        (Compared(("nothing.safetensors",)), "--compare: .*nothing.safetensors: no such file"),
        (Compared(steps=(3,)), "--checkpoint 3: .*: none is kept"),
    ],
)
def test_what_cannot_be_compared(asked: Any, compared: Compared, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_table(asked("a cat"), compared)
