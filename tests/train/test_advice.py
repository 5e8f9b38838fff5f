"""The notes about trainings that work but are rarely intended."""

from __future__ import annotations

import pytest

from hv15.config import DatasetSettings
from hv15.models.variants import VARIANTS
from hv15.train.advice import about_lengths, about_sizes, about_training
from tests.models.checkpoint_facts import HD, facts


@pytest.mark.parametrize("name", VARIANTS)
def test_nothing_is_said_about_a_checkpoint_used_as_it_was_made(name: str):
    variant = VARIANTS[name]
    height, width = HD[variant.resolution]
    assert about_sizes(variant, {(height, width): 3, (width, height): 2}) == []
    assert len(about_training(facts(name), "none")) == variant.distilled


def test_training_on_rounded_weights():
    (sentence,) = about_training(facts(dtype="float16"), "none")
    assert "float16 weights are the published ones rounded once more" in sentence
    (sentence,) = about_training(facts(quantisation="fp8_scaled", dtype="float8_e4m3fn"), "fp8")
    assert "use the bfloat16 file with train.quantize: fp8" in sentence


def test_training_on_a_distilled_base():
    (sentence,) = about_training(facts("480p_t2v_distilled"), "none")
    assert "undoes its distillation" in sentence
    assert "train on 480p_t2v," in sentence
    (sentence,) = about_training(facts("480p_i2v_step_distilled"), "none")
    assert "mean-flow" in sentence
    assert "train on 480p_i2v," in sentence


def test_a_480p_base_at_720p_and_the_other_way_round():
    (sentence,) = about_sizes(VARIANTS["480p_t2v"], {(720, 1280): 3, (960, 960): 1, (480, 848): 1})
    assert "4 of 5 clips are of 720p sizes (most: 720 x 1280): use 720p_t2v, or a size near 480 x 848" in sentence
    assert about_sizes(VARIANTS["480p_t2v"], {(720, 1280): 2, (480, 848): 2}) == []
    (sentence,) = about_sizes(VARIANTS["720p_i2v"], {(480, 480): 1})
    assert "use 480p_i2v, or a size near 720 x 1280" in sentence


def test_videos_of_which_single_frames_are_trained():
    def video(**settings: object) -> DatasetSettings:
        return DatasetSettings.model_validate({"video_directory": "clips", **settings})

    datasets = [
        video(),
        video(target_frames=[1, 25]),
        video(frame_extraction="full"),
        DatasetSettings(image_directory="stills"),
        video(target_frames=[1], frame_extraction="chunk"),
    ]
    found = about_lengths(datasets, 61)
    assert list(found) == [0, 4]
    assert "samples have 61 frames: set target_frames to lengths such as [25]" in found[0]
    assert about_lengths(datasets, 1) == about_lengths(datasets, 0) == {}
