"""The notes about checkpoints that work but are rarely intended; there are none about usual ones."""

from __future__ import annotations

import pytest

from hv15.models.advice import about_checkpoint, about_memory
from hv15.models.variants import VARIANTS, FoundVariant
from tests.models.checkpoint_facts import facts


@pytest.mark.parametrize("name", VARIANTS)
def test_nothing_is_said_about_a_checkpoint_used_as_it_was_made(name: str):
    variant = VARIANTS[name]
    sentences = about_checkpoint(facts(name), variant.task)
    assert len(sentences) == variant.sparse + (not variant.published)


def test_a_sparse_checkpoint_runs_dense():
    (sentence,) = about_checkpoint(facts("720p_i2v_distilled_sparse"), "i2v")
    assert "dense attention" in sentence
    assert "use 720p_i2v_distilled, its counterpart" in sentence


def test_a_checkpoint_that_was_announced_only():
    (sentence,) = about_checkpoint(facts("720p_t2v_distilled", "models.variant"), "t2v")
    assert "had not been published when this version of hv15 was made" in sentence


def test_a_guess_says_how_to_be_sure():
    (sentence,) = about_checkpoint(facts("480p_i2v", "default"), "i2v")
    assert "480p_i2v is a guess: set models.variant" in sentence


def test_another_task():
    (sentence,) = about_checkpoint(facts("720p_i2v"), "t2v")
    assert "task is t2v, but 720p_i2v was made for i2v" in sentence


def test_a_setting_against_the_file_name():
    detected = FoundVariant("480p_t2v", "path", "480p_t2v.safetensors")
    (sentence,) = about_checkpoint(facts("720p_t2v", "models.variant", detected=detected), "t2v")
    assert "models.variant says 720p_t2v, but the file is 480p_t2v" in sentence


def test_names_that_are_not_published_take_the_next_of_kin():
    (sentence,) = about_checkpoint(facts("480p_t2v_distilled", unknown="480p_t2v_step_distilled"), "t2v")
    assert "480p_t2v_step_distilled is not a published checkpoint" in sentence
    assert "guidance 1, shift 5, 50 steps" in sentence


def test_tensors_against_the_name():
    (sentence,) = about_checkpoint(facts("480p_i2v", meanflow=True), "i2v")
    assert "has the time_r_in tensors of a step-distilled checkpoint" in sentence
    (sentence,) = about_checkpoint(facts("480p_i2v_step_distilled", meanflow=False), "i2v")
    assert "lacks the time_r_in tensors" in sentence


def test_float8_without_scales():
    (sentence,) = about_checkpoint(facts(quantisation="fp8", dtype="float8_e4m3fn"), "t2v")
    assert "coarsest" in sentence
    assert about_checkpoint(facts(quantisation="fp8_scaled", dtype="float8_e4m3fn"), "t2v") == []


def test_float8_files_held_otherwise():
    fp8 = facts(quantisation="fp8_scaled", dtype="float8_e4m3fn")
    assert about_memory(fp8, "sample", "fp8") == about_memory(fp8, "sample", "fp8_fast") == []
    assert about_memory(facts(), "sample", "none") == about_memory(facts(), "sample", "nf4") == []
    (sentence,) = about_memory(fp8, "sample", "none")
    assert "use sample.quantize: fp8" in sentence
    (sentence,) = about_memory(fp8, "train", "nf4")
    assert "train.quantize: nf4 rounds it once more" in sentence
