"""What the config accepts across its sections, and the rules that several of them share."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from hv15.choices import roles_of
from hv15.config import Settings, TrainSettings
from hv15.config.section import check_frames, check_size
from tests.config.conftest import Load, Problems


@pytest.mark.parametrize("count", [1, 5, 9, 81, 121, 129])
def test_frame_counts_of_the_form_4k_plus_1_pass(count: int) -> None:
    assert check_frames(count) == count


@pytest.mark.parametrize(("count", "nearest"), [(2, "1 and 5"), (4, "1 and 5"), (8, "5 and 9"), (120, "117 and 121")])
def test_other_frame_counts_name_the_two_nearest(count: int, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"the nearest are {nearest}$"):
        check_frames(count)


def test_no_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 1 to 10001"):
        check_frames(0)
    with pytest.raises(ValueError, match="expected 1 to 10001"):
        check_frames(-3)


@pytest.mark.parametrize(
    ("size", "nearest"), [(850, "848 and 864"), (15, "16"), (0, "16"), (-16, "16"), (17, "16 and 32")]
)
def test_sizes_off_the_grid_name_the_nearest(size: int, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"nearest: {nearest}$"):
        check_size(size)
    assert check_size(848) == 848


def test_settings_cannot_be_changed_after_loading() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        TrainSettings().seed = 3  # type: ignore[misc]


def test_each_task_needs_its_images_and_files(problems: Problems) -> None:
    text = "task: i2v\ndatasets: [{video_directory: clips}]\nmodels: {vae: v, text_encoder: t, glyph_encoder: g}\n"
    lines = problems(text + "sample: {prompts: [{prompt: a cat}]}", base=False)
    assert [line.split(": ")[0] for line in lines] == [
        "config.yaml:3:1 models.dit",
        "config.yaml:3:1 models.image_encoder",
        "config.yaml:4:20 sample.prompts[0].image_path",
    ]
    (line,) = problems("sample: {prompts: [{prompt: a cat, image_path: a.png}]}")
    assert line.endswith("is set, but task is t2v: remove it, or set task: i2v")


def test_a_download_needs_a_variant_and_takes_no_paths(problems: Problems, load: Load) -> None:
    text = "datasets: [{video_directory: clips}]\nmodels: "
    assert problems(text + "{source: hub}", base=False) == [
        "config.yaml:2:1 models.variant: models.source is hub: set the checkpoint to download, e.g. 720p_t2v"
    ]
    (line,) = problems(text + "{source: hub, variant: 720p_t2v, vae: my.safetensors}", base=False)
    assert line.startswith("config.yaml:2:47 models.vae: is not used with models.source hub")
    assert load(text + "{source: hub, variant: 720p_t2v}", base=False).models.missing_files(roles_of("t2v")) == []


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:3"])
def test_devices_by_name(load: Load, device: str) -> None:
    assert load(f"runtime: {{device: '{device}'}}").runtime.device == device


def test_other_devices_are_refused(problems: Problems) -> None:
    assert "expected auto, cpu, cuda" in problems("runtime: {device: gpu0}")[0]


def test_the_least_config_has_every_section() -> None:
    settings = Settings.model_validate({"models": {"source": "demo"}, "datasets": [{"video_directory": "clips"}]})
    assert settings.task == "t2v"
    assert settings.convert.formats == ("comfyui",)
    assert settings.cache.vae_sample_size == 0


@pytest.mark.parametrize(
    ("datasets", "length", "where", "message"),
    [
        ([{"end_step": 5, "start_step": 5}, {}], {}, (0, "end_step"), "found 5, expected more than start_step (5)"),
        ([{"start_step": 9}, {}], {"max_train_steps": 9}, (0, "start_step"), "the training has 9 steps"),
        ([{"start_step": 9}], {"max_train_epochs": 9}, (), "none of them takes part in steps 1 to 9"),
        ([{"end_step": 3}, {"start_step": 5}], {}, (), "none of them takes part in steps 4 to 5"),
        ([{"end_step": 3}, {"end_step": 8}], {"max_train_steps": 9}, (), "none of them takes part from step 9 on"),
        ([{"end_step": 8}], {"max_train_epochs": 1}, (), "none of them takes part from step 9 on"),
    ],
)
def test_datasets_that_leave_steps_empty_are_refused(
    datasets: list[dict[str, Any]], length: dict[str, int], where: tuple[str | int, ...], message: str
) -> None:
    folders = [{"video_directory": str(number), **each} for number, each in enumerate(datasets)]
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"models": {"source": "demo"}, "datasets": folders, "train": length})
    (error,) = caught.value.errors()
    assert error["loc"] == ("datasets", *where)
    assert message in error["msg"]


def test_datasets_may_follow_each_other() -> None:
    follow = [{"video_directory": "a", "end_step": 5}, {"video_directory": "b", "start_step": 5}]
    ends = [{"video_directory": "a", "end_step": 5}]
    for datasets, steps in ((follow, 9), (ends, 5)):
        Settings.model_validate(
            {"models": {"source": "demo"}, "datasets": datasets, "train": {"max_train_steps": steps}}
        )
