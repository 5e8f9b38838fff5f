"""The notes about samples that work but are rarely intended."""

from __future__ import annotations

import pytest

from hv15.models.variants import VARIANTS
from hv15.sample.advice import about_enlarging, about_sample
from hv15.sample.prompts import Enlarged
from tests.models.checkpoint_facts import HD


@pytest.mark.parametrize("name", VARIANTS)
def test_nothing_is_said_about_a_checkpoint_used_as_it_was_made(name: str):
    variant = VARIANTS[name]
    height, width = HD[variant.resolution]
    steps, scale = variant.infer_steps, variant.guidance_scale
    assert about_sample(variant, height=height, width=width, steps=steps, guidance_scale=scale) == []


def test_a_480p_base_at_720p():
    (sentence,) = about_sample(VARIANTS["480p_i2v"], height=720, width=1280, steps=50, guidance_scale=6)
    assert "720 x 1280 is a 720p size, but 480p_i2v was made for 480p" in sentence


def test_samples_of_distilled_checkpoints():
    variant = VARIANTS["480p_t2v_distilled"]
    sentences = about_sample(variant, height=480, width=848, steps=20, guidance_scale=6)
    assert [sentence.split(":")[0] for sentence in sentences] == ["guidance_scale 6", "infer_steps 20"]
    step = VARIANTS["480p_i2v_step_distilled"]
    assert about_sample(step, height=480, width=848, steps=8, guidance_scale=1) == []
    (sentence,) = about_sample(step, height=480, width=848, steps=30, guidance_scale=1)
    assert "8 or 12 steps" in sentence
    assert about_sample(VARIANTS["480p_t2v"], height=480, width=848, steps=20, guidance_scale=3) == []


def test_sizes_of_super_resolution_that_the_official_program_refuses():
    small = Enlarged("1080p", 720, 1280)
    assert about_enlarging(small, height=1072, width=1904) == []
    (sentence,) = about_enlarging(small, height=1088, width=1920)
    assert "1280x720 to 1920x1088 is not an official pair of sizes for 1080p_sr_distilled" in sentence
    assert about_enlarging(Enlarged("720p", 720, 1280), height=1072, width=1904), "made for 480p"
