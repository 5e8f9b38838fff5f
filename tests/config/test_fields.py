"""The list of settings with their help, and what enters a digest."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from pydantic import Field

from hv15.config import CacheSettings, DatasetSettings, Settings, TrainSettings, digest_view, fields, help_text
from hv15.config.fields import FieldInfo, encoding_view, marked_view
from hv15.config.section import Affects, Section, only_with

LISTED = {field.path: field for field in fields(Settings)}


def test_every_setting_has_help() -> None:
    assert len(LISTED) > 100
    assert [path for path, field in LISTED.items() if len(field.doc) < 20] == []


def test_a_setting_knows_its_values_and_its_default() -> None:
    rate = LISTED["train.learning_rate"]
    assert (rate.type, rate.default, rate.default_text) == ("number from 0", 1e-4, "0.0001")
    assert LISTED["task"].type == "one of t2v, i2v"
    assert LISTED["datasets[].resolution"].default == [960, 544]
    assert LISTED["sample.prompts[].prompt"].default is ...
    assert LISTED["sample.prompts[].prompt"].default_text == "required"
    assert LISTED["sample.video_size"].type == "list of 2: whole number from 16 to 8192 in steps of 16"
    assert LISTED["models.dit"].type == "path"
    assert LISTED["models.dit"].default_text == "not set"
    assert LISTED["train"].is_section
    assert LISTED["sample.prompts"].default_text == "[]"


def test_headings_stand_before_their_settings() -> None:
    paths = list(LISTED)
    assert paths.index("train") < paths.index("train.seed") < paths.index("sample")


def test_defaults_in_the_list_are_those_of_a_config() -> None:
    dumped = Settings.model_validate({"models": {"source": "demo"}, "datasets": [{"video_directory": "x"}]}).dump()
    for path in (
        "train.learning_rate",
        "cache.directory",
        "sample.video_size",
        "convert.formats",
        "train.optimizer_args",
    ):
        section, name = path.split(".")
        assert LISTED[path].default == dumped[section][name]


def test_help_is_text_for_a_terminal() -> None:
    text = help_text(Settings, "train.network_")
    assert "train.network_dim  (whole number from 1 to 4096; default 32)" in text.splitlines()
    assert "cache" not in text
    assert "    (a change starts the training anew)" in text.splitlines()
    assert "sample.prompts[].prompt  (text; required)" in help_text(Settings)


def test_speed_and_place_enter_no_digest() -> None:
    train = digest_view(TrainSettings())
    assert "gradient_checkpointing" not in train
    assert "state_every_n_steps" not in train
    assert not {name for name in train if name.startswith("save_")} - {"save_precision"}  # copies on the way
    assert train["learning_rate"] == 1e-4
    assert (train["save_precision"], train["max_train_steps"]) == ("float32", 1600)  # they affect the result
    cache = digest_view(CacheSettings.model_validate({"directory": "/elsewhere", "shards": 8, "workers": 9}))
    assert cache == digest_view(CacheSettings())
    kept = {"vae_sample_size", "dtype", "latent_dtype", "text_dtype", "fp8_vl", "text_encoder_cpu"}
    assert set(cache) == kept
    assert set(digest_view(CacheSettings(vae_sample_size=128))) == {*kept, "vae_tile_overlap"}


def test_encoded_clips_and_captions_have_settings_of_their_own() -> None:
    tiled = CacheSettings(vae_sample_size=128)
    assert set(encoding_view(tiled, "latents")) == {"vae_sample_size", "vae_tile_overlap", "dtype", "latent_dtype"}
    assert set(encoding_view(tiled, "text")) == {"dtype", "text_dtype", "fp8_vl", "text_encoder_cpu"}


def test_a_setting_that_is_not_read_enters_no_digest() -> None:
    """`only_with`: the setting counts only while the settings that it goes with have one of the listed values."""

    class Cut(Section):
        way: Literal["head", "slide"] = "head"
        stride: int = Field(1, json_schema_extra=only_with(way=("slide",)))

    assert digest_view(Cut(stride=2)) == digest_view(Cut()) == {"way": "head"}
    assert digest_view(Cut(way="slide", stride=2)) == {"way": "slide", "stride": 2}


def test_a_setting_can_be_for_either_of_two_choices() -> None:
    class Both(Section):
        first: Literal["a", "b"] = "a"
        second: Literal["c", "d"] = "c"
        shape: int = Field(1, json_schema_extra=only_with({"first": ("b",)}, {"second": ("d",)}))

    assert "shape" not in digest_view(Both(shape=2))
    assert "shape" in digest_view(Both(first="b"))
    assert "shape" in digest_view(Both(second="d"))


def test_shapes_of_noise_levels_count_only_where_they_are_used() -> None:
    """So that changing one of another rule trains nothing again."""
    shapes = {"discrete_flow_shift", "sigmoid_scale", "logit_mean", "logit_std", "mode_scale", "beta_alpha"}

    def used(**train: Any) -> set[str]:
        return shapes & digest_view(TrainSettings(**train)).keys()

    assert used() == {"discrete_flow_shift", "sigmoid_scale"}
    assert used(timestep_sampling="uniform") == set()
    assert used(timestep_sampling="logsnr", weighting_scheme="mode") == {"logit_mean", "logit_std", "mode_scale"}
    assert used(weighting_scheme="logit_normal") - used() == {"logit_mean", "logit_std"}
    assert used(timestep_sampling="beta") == {"discrete_flow_shift", "beta_alpha"}


def test_marked_settings_can_be_asked_for() -> None:
    dataset = DatasetSettings(video_directory="a", num_repeats=2, caption_prefix="p")
    assert marked_view(dataset, Affects.WEIGHT) == {"batch_size": 1, "num_repeats": 2}
    assert {"caption_prefix", "default_caption", "trigger"} < marked_view(dataset, Affects.CAPTION).keys()


def test_a_digest_view_goes_into_lists_of_sections() -> None:
    config: dict[str, Any] = {"models": {"source": "demo"}, "datasets": [{"video_directory": "a", "target_fps": 2}]}
    config["sample"] = {"prompts": [{"prompt": "p", "name": "n"}]}
    view = digest_view(Settings.model_validate(config))
    assert "video_directory" not in view["datasets"][0]
    assert view["datasets"][0]["target_fps"] == 2
    assert view["sample"]["prompts"][0]["prompt"] == "p"
    assert "dit" not in view["models"]
    json.dumps(view, allow_nan=False)


@pytest.mark.parametrize(
    ("path", "mark"),
    [
        ("cache.shards", "speed"),
        ("models.vae", "place"),
        ("train.seed", "past"),
        ("train.network_dim", "network"),
        ("train.quantize", "past"),
        ("sample.quantize", None),
        ("train.save_precision", "future"),
        ("train.max_train_steps", "length"),
        ("train.continue_from", "origin"),
        ("train.preview.infer_steps", "watching"),
        ("datasets[].resolution", "past"),
        ("train.validation.datasets[].resolution", "measuring"),
        ("sample.prompts[].prompt", None),
    ],
)
def test_the_mark_is_in_the_list(path: str, mark: str | None) -> None:
    field: FieldInfo = LISTED[path]
    assert field.affects == mark
