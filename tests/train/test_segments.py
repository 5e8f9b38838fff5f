"""A LoRA that several trainings made tells each of them, so that they can be done again."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from hv15.commands.provenance import config_of
from hv15.config import Settings
from hv15.errors import UserError
from hv15.train.examples import Example
from tests.train.continued import Data, metadata, planned, starts, train
from tests.train.test_resume import at_step, no_commit, send  # noqa: F401  (a fixture)
from tests.train.world import run, tiny_stores


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return tiny_stores(tmp_path_factory.mktemp("cache"))


def test_one_training_tells_of_no_segments(tmp_path: Path, data: Data) -> None:
    train(tmp_path, data, max_train_steps=1)
    assert "hv15.segments" not in metadata(train(tmp_path, data, max_train_steps=2))


def test_a_lora_tells_by_which_trainings_it_was_made(tmp_path: Path, data: Data) -> None:
    """Enough to do the same again: each config, and where it was left."""
    options: list[dict[str, Any]] = [
        {"max_train_steps": 2},
        {"max_train_steps": 4, "learning_rate": 0.003, "continue_from": "latest"},
        {"max_train_steps": 5, "learning_rate": 0.001, "continue_from": "latest"},
    ]
    for each in options:
        lora = train(tmp_path, data, **each)
    segments = json.loads(metadata(lora)["hv15.segments"])
    assert [each["from_step"] for each in segments] == [0, 2, 4]
    assert [each.get("to_step") for each in segments] == [2, 4, None]
    assert [each["config"]["train"]["learning_rate"] for each in segments[:2]] == [0.01, 0.003]
    for number, each in enumerate(segments[:2]):
        config = Settings.model_validate(each["config"])
        again = tmp_path / "again"
        config._root = again
        lora_again = run(again / "results", config, data=data, spec=planned(again, config))
        made_from = json.loads(metadata(lora_again)["hv15.made_from"])
        assert made_from["train"]["continue_from"] == each.get("origin"), number
    assert train(again, data, **options[2]).read_bytes() == lora.read_bytes()


def replayed(root: Path, data: Data, text: str) -> Path:
    """Train in a project's results what a printed config says."""
    config = Settings.model_validate(yaml.safe_load(text))
    config._root = root
    return run(root / "results", config, data=data, spec=planned(root, config))


GO_ON: dict[str, Any] = {"max_train_steps": 5, "learning_rate": 0.003, "continue_from": "latest"}


@pytest.mark.parametrize(
    "first",
    [
        {},
        pytest.param({"max_train_epochs": 3}, marks=pytest.mark.slow),
        pytest.param({"save_every_n_steps": 1, "state_every_n_steps": 7}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_printed_configs_make_the_lora_again(
    tmp_path: Path, data: Data, first: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one was left before its end, so its config ends there."""
    with monkeypatch.context() as patch:
        patch.setattr(Example, "prediction", at_step(2, send(signal.SIGTERM)))
        with pytest.raises(SystemExit):
            train(tmp_path, data, **{"max_train_steps": 6, **first})
    lora = train(tmp_path, data, **GO_ON)
    texts = [config_of(lora, number) for number in (1, 2)]
    assert yaml.safe_load(texts[0])["train"]["max_train_steps"] == 2
    assert texts[1] == config_of(lora)
    made = [replayed(tmp_path / "again", data, text) for text in texts]
    assert starts(tmp_path / "again") == [2]
    assert made[1].read_bytes() == lora.read_bytes()


@pytest.mark.slow
def test_a_rate_that_depends_on_the_length_keeps_the_state_that_the_next_one_starts_from(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shorter training would have another rate. In half of its length, the state is still there at its end."""
    options: dict[str, Any] = {"max_train_steps": 4, "lr_scheduler": "cosine"}
    with monkeypatch.context() as patch:
        patch.setattr(Example, "prediction", at_step(2, send(signal.SIGTERM)))
        with pytest.raises(SystemExit):
            train(tmp_path, data, **options)
    lora = train(tmp_path, data, **GO_ON)
    text = config_of(lora, 1)
    assert text.startswith("# The next training starts from its state after step 2.\n")
    assert "# Stop it" not in text
    for each in (text, config_of(lora, 2)):
        again = replayed(tmp_path / "again", data, each)
    assert again.read_bytes() == lora.read_bytes()
    whole = yaml.safe_load(text)["train"]
    assert (whole["max_train_steps"], whole["state_every_n_steps"]) == (4, 2)


@pytest.mark.slow
def test_one_that_is_more_than_twice_as_long_has_to_be_stopped(
    tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = at_step(2, send(signal.SIGTERM))
    with monkeypatch.context() as patch:
        patch.setattr(Example, "prediction", stop)
        with pytest.raises(SystemExit):
            train(tmp_path, data, max_train_steps=6, lr_scheduler="cosine")
    lora = train(tmp_path, data, **GO_ON)
    text = config_of(lora, 1)
    assert "# Stop it after that, and before step 5: `hv15 stop`.\n" in text
    with monkeypatch.context() as patch:
        patch.setattr(Example, "prediction", at_step(4, send(signal.SIGTERM)))
        with pytest.raises(SystemExit):
            replayed(tmp_path / "again", data, text)
    again = replayed(tmp_path / "again", data, config_of(lora, 2))
    assert again.read_bytes() == lora.read_bytes()


@pytest.mark.slow
def test_a_copy_that_the_next_one_starts_from_is_kept(tmp_path: Path, data: Data) -> None:
    train(tmp_path, data, max_train_steps=4, save_every_n_steps=3)
    copy = "results/train/checkpoints/lora-step000003.safetensors"
    lora = train(tmp_path, data, max_train_steps=2, learning_rate=0.003, continue_from=copy)
    texts = [config_of(lora, number) for number in (1, 2)]
    assert texts[0].startswith("# The next training starts from its copy of step 3.\n")
    made = [replayed(tmp_path / "again", data, text) for text in texts]
    assert made[1].read_bytes() == lora.read_bytes()


def test_a_segment_that_is_not_there_is_refused(tmp_path: Path, data: Data) -> None:
    lora = train(tmp_path, data, max_train_steps=1)
    assert config_of(lora, 1) == config_of(lora)
    for number in (0, 2):
        with pytest.raises(UserError, match=f"--segment: found {number}, but one training made it"):
            config_of(lora, number)
    state = tmp_path / "results/train/state/step-000001"
    (tmp_path / "results/train/run.json").unlink()
    shutil.move(state, tmp_path / "alone/state/step-000001")
    lora = train(tmp_path / "other", data, **{**GO_ON, "continue_from": str(tmp_path / "alone")})
    with pytest.raises(UserError, match="does not tell the config of this training"):
        config_of(lora, 1)
