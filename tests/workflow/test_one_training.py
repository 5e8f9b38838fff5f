"""Whether LoRA files are of one training, by what they tell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hv15.errors import UserError
from hv15.records.json_values import JsonObject
from hv15.workflow.one_training import refuse_other_trainings
from tests.workflow.stub_hv15 import write_safetensors

STATE = {"state": "ab" * 32, "step": 2, "samples": 2, "reset_optimizer": False}


def spec(**train: Any) -> JsonObject:
    return {"train": {"learning_rate": 1e-4, "max_train_steps": 4, **train}, "dit": "tiny", "dataset": {"digest": "d"}}


def lora(path: Path, made_from: Mapping[str, Any], segments: list[JsonObject] | None = None) -> Path:
    train = made_from["train"]
    known = {name: value for name, value in train.items() if name != "continue_from"}
    told = {"hv15.config": json.dumps({"train": known}), "hv15.made_from": json.dumps(made_from), "hv15.steps": "2"}
    write_safetensors(path, told | ({"hv15.segments": json.dumps(segments)} if segments else {}))
    return path


def first(**train: Any) -> JsonObject:
    """The past of the training that `spec` is of."""
    told = spec(**train)
    assert isinstance(told["train"], dict)
    return {**told, "train": {name: value for name, value in told["train"].items() if name != "max_train_steps"}}


def test_copies_of_one_training(tmp_path: Path) -> None:
    files = [
        lora(tmp_path / "a.safetensors", spec()),
        lora(tmp_path / "b.safetensors", spec(max_train_steps=9)),
        lora(tmp_path / "published.safetensors", {**first(), "step": 2, "save_precision": "bfloat16"}),
    ]
    refuse_other_trainings(files)


def test_copies_of_trainings_that_continued_one_another(tmp_path: Path) -> None:
    last = spec(learning_rate=0.3, continue_from=STATE)
    segments: list[JsonObject] = [
        {"from_step": 0, "to_step": 2, "made_from": first()},
        {"from_step": 2, "origin": STATE},
    ]
    refuse_other_trainings([lora(tmp_path / "a.safetensors", spec()), lora(tmp_path / "b.safetensors", last, segments)])


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"learning_rate": 0.3}, r"train\.learning_rate 0\.0001 -> 0\.3"),
        ({"seed": 1, "network_dim": 2, "dtype": "float32", "layers": "mlp"}, r"train\.seed .* and 1 more"),
        ({"continue_from": STATE}, "another start"),
        ({"lr_scheduler": "cosine"}, r"train\.lr_scheduler not set -> cosine"),
    ],
)
def test_two_trainings_are_refused_in_words(other: dict[str, Any], words: str, tmp_path: Path) -> None:
    files = [lora(tmp_path / "a.safetensors", spec()), lora(tmp_path / "b.safetensors", spec(**other))]
    with pytest.raises(UserError, match=rf"b\.safetensors: is of another training than .*a\.safetensors: .*{words}"):
        refuse_other_trainings(files)


def test_two_lengths_are_two_trainings_if_the_rate_depends_on_them(tmp_path: Path) -> None:
    cosine = {"lr_scheduler": "cosine"}
    files = [
        lora(tmp_path / "a.safetensors", spec(**cosine)),
        lora(tmp_path / "b.safetensors", spec(**cosine, max_train_steps=9)),
    ]
    with pytest.raises(UserError, match=r"train\.max_train_steps 4 -> 9"):
        refuse_other_trainings(files)


@pytest.mark.parametrize("metadata", [{}, {"hv15.made_from": "[1]"}, {"hv15.made_from": "{}", "hv15.config": "{"}])
def test_files_that_do_not_tell_pass(metadata: dict[str, str], tmp_path: Path) -> None:
    write_safetensors(tmp_path / "foreign.safetensors", metadata)
    refuse_other_trainings([lora(tmp_path / "a.safetensors", spec()), tmp_path / "foreign.safetensors"])
