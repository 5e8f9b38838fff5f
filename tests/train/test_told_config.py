"""What a LoRA tells of its config: enough to make the same file again, and nothing that the file does not depend on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hv15.cache.batches import Stores, TrainingItem
from hv15.config import Settings
from hv15.models.weights.header import read_header
from hv15.records.json_values import JsonObject
from hv15.train.told_config import told_config
from tests.train.world import run, settings, tiny_stores

Data = tuple[Sequence[TrainingItem], Stores]
HALF: dict[str, Any] = {"fraction": 0.4}
PATIENT: dict[str, Any] = {**HALF, "every_n_steps": 1, "patience": 3}
FEW: dict[str, Any] = {**PATIENT, "samples": 2}


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return tiny_stores(tmp_path / "cache")


def told(lora: Path) -> JsonObject:
    return json.loads(read_header(lora).metadata["hv15.config"])


@pytest.mark.parametrize(
    ("plain", "watched"),
    [
        ({}, {"save_every_n_steps": 2, "save_last_n_steps": 1}),
        pytest.param({}, {"save_every_n_epochs": 1, "save_last_n_epochs": 1}, marks=pytest.mark.slow),
        pytest.param({}, {"state_every_n_steps": 3}, marks=pytest.mark.slow),
        pytest.param({}, {"publish_step": 2, "tracker_project": "mine"}, marks=pytest.mark.slow),
        pytest.param({"ema_decay": 0.5}, {"ema_decay": 0.5, "preview_average": True}, marks=pytest.mark.slow),
        (
            {"validation": HALF},
            {"validation": {**HALF, "every_n_steps": 2, "at_first": True, "samples": 2, "keep_best": True}},
        ),
        pytest.param({"validation": FEW}, {"validation": {**FEW, "keep_best": True}}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_what_is_seen_and_kept_on_the_way_is_not_in_the_file(
    plain: dict[str, Any], watched: dict[str, Any], tmp_path: Path, data: Data
) -> None:
    files = [
        run(tmp_path / name, settings(max_train_steps=4, **options), data=data)
        for name, options in (("plain", plain), ("watched", watched))
    ]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_log_level_is_not_in_the_file() -> None:
    quiet = settings().model_copy(update={"runtime": settings().runtime.model_copy(update={"log_level": "debug"})})
    assert quiet.dump() != settings().dump()
    assert told_config(quiet.dump(), {}) == told_config(settings().dump(), {})
    runtime = told_config(quiet.dump(), {})["runtime"]
    assert isinstance(runtime, dict)
    assert "device" in runtime
    assert "log_level" not in runtime


def test_where_copies_of_the_cache_are_is_not_in_the_file() -> None:
    """It names a disk of one machine."""
    there = settings().model_copy(update={"cache": settings().cache.model_copy(update={"scratch": "/local/mine"})})
    assert there.dump() != settings().dump()
    assert told_config(there.dump(), {}) == told_config(settings().dump(), {})
    assert "/local/mine" not in json.dumps(told_config(there.dump(), {}))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            {"save_every_n_steps": 2, "preview_every_n_steps": 2, "publish_step": 3, "trackers": []},
            marks=pytest.mark.slow,
        ),
        pytest.param({"validation": {**FEW, "at_first": True}}, marks=pytest.mark.slow),
        {"lr_scheduler": "cosine", "ema_decay": 0.5, "save_precision": "bfloat16", "gradient_accumulation_steps": 2},
    ],
    ids=str,
)
def test_it_makes_the_same_file_again(options: dict[str, Any], tmp_path: Path, data: Data) -> None:
    first = run(tmp_path / "first", settings(max_train_steps=4, **options), data=data)
    again = run(tmp_path / "again", Settings.model_validate(told(first)), data=data)
    assert again.read_bytes() == first.read_bytes()


def test_what_lets_measurements_end_the_training_is_told() -> None:
    def validation(**options: Any) -> object:
        return told_config(settings(validation=options).dump(), {})["train"]["validation"]  # type: ignore[index,call-overload]

    assert validation(**PATIENT, samples=18) == {
        **PATIENT,
        "datasets": [],
        "every_n_epochs": None,
        "at_first": False,
        "samples": 18,
        "noise_levels": "training",
    }
    assert validation(**HALF, samples=18) == {**HALF, "patience": None}


@pytest.mark.parametrize(
    ("options", "past", "length"),
    [
        ({"max_train_steps": 6}, {"train": {}}, (3, None)),
        ({"max_train_steps": None, "max_train_epochs": 5}, {"train": {}}, (3, None)),
        ({"max_train_steps": 6}, {"train": {"max_train_steps": 6}}, (6, None)),
        ({"max_train_steps": None, "max_train_epochs": 5}, {"train": {"max_train_epochs": 5}}, (None, 5)),
    ],
)
def test_an_earlier_training_ends_where_it_was_left(
    options: dict[str, Any], past: JsonObject, length: tuple[int | None, int | None]
) -> None:
    """But where its rate depends on its length, which is then in its past."""
    train = told_config(settings(**options).dump(), past, 3)["train"]
    assert isinstance(train, dict)
    assert (train["max_train_steps"], train["max_train_epochs"]) == length


@pytest.mark.parametrize("config", [{}, {"train": 3}, {"runtime": None}, {"train": {"validation": 1, "new": 2}}])
def test_a_config_of_another_version_is_told_as_it_is(config: JsonObject) -> None:
    assert told_config(config, {}) == config
