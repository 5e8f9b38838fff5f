"""`hv15 why` and `hv15 run --dry-run`: what would run and why, without starting or changing anything."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hv15.records.reasons import DueStages
from tests.commands.workbench import Workbench, hv15, is_a_refusal


def unchanged(project: Workbench, *words: str | Path) -> str:
    """Run a command that must leave every result and spec as it is."""
    project.does("why")  # what is remembered of files is written by the first look
    before = {name: content for name, content in project.files().items() if not name.startswith("cache/")}
    said = project.does(*words)
    assert {name: content for name, content in project.files().items() if not name.startswith("cache/")} == before
    return said.out


def test_of_a_project_of_which_nothing_has_run(project: Workbench) -> None:
    lines = unchanged(project, "why").splitlines()
    assert lines == [
        "check the model files: not made yet",
        *(line for line in lines if line.startswith("encode ")),
        "train the LoRA: not made yet",
        "sample one: not made yet",
        "decode to video one: not made yet",
        "publish the LoRA: not made yet",
    ]
    encoding = "\n".join(line for line in lines if line.startswith("encode "))
    assert "encode clips, shard 0 of 2: " in encoding
    assert "clips are not encoded yet" in encoding
    assert "encode captions and prompts, shard 0 of 2: " in encoding


def test_old_and_new_values_are_told(done: Workbench) -> None:
    done.set(train={"network_dim": 8}, sample={"prompts": [{"name": "one", "prompt": "a red circle", "seed": 5}]})
    said = unchanged(done, "why")
    assert "train the LoRA:\n  train.network_dim 2 -> 8\n" in said
    assert "  seed 123 -> 5\n  the LoRA is trained again" in said


def test_only_what_is_asked_for(done: Workbench) -> None:
    done.set(train={"network_dim": 8})
    asked = ("why", "--target", "results/train.safetensors")
    said = unchanged(done, *asked).splitlines()
    assert said[:2] == ["train the LoRA:", "  train.network_dim 2 -> 8"]
    assert re.fullmatch(r"  the training of 2 steps is kept in train-\w{8}", said[2])
    assert said[3:] == []


def test_nothing_to_do(done: Workbench) -> None:
    said = unchanged(done, "why", "--target", "results/samples/one.mp4")
    assert said == "nothing would run: everything is up to date\n"


def test_as_a_record(done: Workbench) -> None:
    done.set(train={"network_dim": 8})
    due = DueStages.from_json(json.loads(unchanged(done, "why", "--json")))
    train = next(stage for stage in due.stages if stage.rule == "train")
    assert (train.title, train.reasons[0]) == ("train the LoRA", "train.network_dim 2 -> 8")
    assert train.products == ("results/train.safetensors",)


def test_a_dry_run_says_the_same(done: Workbench) -> None:
    done.set(train={"network_dim": 8})
    why = unchanged(done, "why")
    said = hv15("run", "--dry-run", done.root)
    assert (said.code, said.out) == (0, why)
    assert not done.paths.runs.exists()
    said = hv15("run", "--dry-run", done.root, "--target", "results/samples/one.mp4")
    assert said.out == hv15("why", done.root, "--target", "results/samples/one.mp4").out


def test_a_target_in_the_place_of_the_project(done: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    done.set(train={"seed": 7}, sample={"seed": 8})
    monkeypatch.chdir(done.root)
    said = hv15("why", "results/train.safetensors")
    assert said.out == hv15("why", done.root, "--target", "results/train.safetensors").out
    assert "train.seed" in said.out
    assert "sample" not in said.out
    is_a_refusal(hv15("why", "results/nope.mp4"), ("results/nope.mp4",))
    is_a_refusal(hv15("why", "nope.yaml"), ("nope.yaml",))


def test_an_unknown_target_is_refused(done: Workbench) -> None:
    for words in (("why",), ("run", "--dry-run")):
        is_a_refusal(hv15(*words, done.root, "--target", "results/nope.mp4"), ("results/nope.mp4",))


def test_what_cannot_be_planned(done: Workbench) -> None:
    done.set(models={"vae": "gone.safetensors"})
    for words in (("why",), ("run", "--dry-run")):
        is_a_refusal(hv15(*words, done.root), ("models.vae", "gone.safetensors does not exist"))
