"""What an entry of `datasets:` accepts: the rules across fields, and the values that are made from others."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from hv15.config import DatasetSettings


def dataset(**values: Any) -> DatasetSettings:
    return DatasetSettings.model_validate({"video_directory": "clips", **values})


def test_one_number_means_a_square_and_one_window() -> None:
    assert dataset(resolution=512).resolution == (512, 512)
    assert dataset(resolution=[960, 544]).resolution == (960, 544)
    assert dataset(target_frames=25).target_frames == (25,)


@pytest.mark.parametrize(
    ("values", "where", "message"),
    [
        ({"image_directory": "stills"}, (), "found both image_directory and video_directory"),
        ({"video_directory": None}, (), "found none"),
        ({"target_frames": [9, 9]}, ("target_frames",), "only once"),
        ({"target_frames": []}, ("target_frames",), "at least 1 item"),
        ({"enable_bucket": False, "resolution": [960, 540]}, ("resolution",), "e.g. [960, 528]"),
        ({"background": "white"}, ("background",), "expected a colour"),
        ({"background": "#12345"}, ("background",), "expected a colour"),
        ({"background": None}, ("background",), "put the colour in quotes"),
        ({"caption_extension": "txt"}, ("caption_extension",), "'.txt'"),
        ({"source_fps": 0}, ("source_fps",), "greater than or equal to 0.01"),
        ({"video_directory": " "}, ("video_directory",), "the path is empty"),
        ({"video_directory": "${HV15_NOT_SET:-}"}, ("video_directory",), "the path is empty"),
        ({"video_directory": "a\0b"}, ("video_directory",), "zero byte"),
        ({"video_directory": "~nobody-of-this-name/x"}, ("video_directory",), "no such home folder"),
    ],
)
def test_dataset_settings_that_contradict_are_refused_at_the_field(
    values: dict[str, Any], where: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        dataset(**values)
    (error,) = caught.value.errors()
    assert error["loc"] == where
    assert message in error["msg"]


def test_video_settings_on_images_are_refused_each() -> None:
    with pytest.raises(ValidationError) as caught:
        dataset(video_directory=None, image_directory="stills", target_frames=[9], frame_sample=2)
    assert [error["loc"] for error in caught.value.errors()] == [("target_frames",), ("frame_sample",)]


def test_a_dataset_knows_its_source_and_kind() -> None:
    assert (dataset().source, dataset().kind) == ("clips", "video")
    images = dataset(video_directory=None, image_jsonl_file="stills.jsonl")
    assert (images.source, images.kind) == ("stills.jsonl", "image")


def test_colours_are_kept_in_one_spelling() -> None:
    assert dataset(background="#FFaa00").background == "#ffaa00"
