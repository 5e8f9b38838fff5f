"""Which settings are said to differ."""

from __future__ import annotations

from pathlib import Path

from hv15.comparison.settings import (
    BASE,
    CLIPS,
    differing,
    marks_of,
    named_settings,
    names_by_settings,
    recorded_settings,
    value_text,
)
from hv15.config.section import Affects
from hv15.records.training import TrainingRecord
from tests.comparison.made_up import make_training


def test_settings_have_dotted_names_and_those_without_an_effect_are_left_out(tmp_path: Path) -> None:
    paths = make_training(tmp_path, preview_every_n_steps=5, optimizer_args={"weight_decay": 0.5})
    found = recorded_settings(TrainingRecord.load(paths.training))
    assert found["train.optimizer_args.weight_decay"] == 0.5
    assert found["datasets[0].resolution"] == [64, 64]
    assert found["train.validation.noise_levels"] == "even"
    assert found[CLIPS] == "12 (012345)"
    assert found[BASE] == "demo"
    hidden = ("train.preview_every_n_steps", "datasets[0].video_directory", "models.directory", "runtime.log_level")
    assert not found.keys() & {*hidden}
    assert not [name for name in found if name.startswith(("sample.", "convert."))], "they are not of the training"


def test_settings_that_change_speed_alone_count_for_time_and_memory(tmp_path: Path) -> None:
    assert marks_of(("train", "blocks_to_swap")) == {Affects.SPEED}
    one, two = ({"train": {"blocks_to_swap": count}} for count in (0, 20))
    names = differing([named_settings(one, ["train"]), named_settings(two, ["train"])])
    assert names == ["train.blocks_to_swap"]


def test_a_mark_of_a_section_holds_for_its_settings() -> None:
    assert Affects.APART in marks_of(("train", "validation", "fraction"))
    assert Affects.PLACE in marks_of(("datasets", 3, "video_directory"))
    assert marks_of(("nothing", "known")) == set()


def test_what_differs_is_said_in_words() -> None:
    names = names_by_settings({"a": {"train.network_dim": 8, "x": None}, "b": {"train.network_dim": 16}})
    assert names == {"a": "network_dim 8", "b": "network_dim 16"}
    assert value_text(None) == "not set"
    assert value_text("x" * 100) == "x" * 23 + "…"
    assert "\x1b" not in value_text("\x1b[31m")
    assert len(value_text("a prompt\nof two lines").splitlines()) == 1


def test_a_setting_that_one_has_and_another_has_not_differs() -> None:
    names = names_by_settings(
        {
            "a": {"train.network_dim": 8, "train.learning_rate": 1e-4, "task": "t2v"},
            "b": {"train.network_dim": 8, "train.learning_rate": 2e-4, "task": "t2v", CLIPS: "24 (012345)"},
        }
    )
    assert names == {"a": "learning_rate 0.0001, clips not set", "b": "learning_rate 0.0002, clips 24 (012345)"}
    assert names_by_settings({"a": {"task": "t2v"}}) == {"a": ""}
