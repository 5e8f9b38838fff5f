"""The settings that training and sampling share for the transformer."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from hv15.config import digest_view
from hv15.config.sample import SampleSettings
from hv15.config.train import TrainSettings


@pytest.mark.parametrize("section", [TrainSettings, SampleSettings])
def test_musubis_two_switches_are_fp8(section):
    assert section.model_validate({"fp8_base": True, "fp8_scaled": True}).quantize == "fp8"
    assert section.model_validate({"fp8_base": False, "fp8_scaled": False, "quantize": "nf4"}).quantize == "nf4"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fp8_base": True}, "both true or both false"),
        ({"fp8_scaled": True}, "both true or both false"),
        ({"fp8_base": True, "fp8_scaled": True, "quantize": "nf4"}, "contradicts quantize: nf4"),
        ({"blocks_to_swap": 52}, "less than or equal to 51"),
        ({"blocks_to_swap": 2, "gradient_checkpointing": False}, "needs gradient_checkpointing"),
        ({"gradient_checkpointing_cpu_offload": True, "gradient_checkpointing": False}, "has no effect"),
        ({"attn_mode": "sage"}, "only for sample.attn_mode"),
    ],
)
def test_what_cannot_work_is_refused(given, message):
    with pytest.raises(ValidationError, match=message):
        TrainSettings.model_validate(given)


def test_sampling_may_use_sage_and_swap():
    settings = SampleSettings(attn_mode="sage", blocks_to_swap=51)
    assert (settings.attn_mode, settings.blocks_to_swap) == ("sage", 51)


def test_only_quantisation_changes_what_is_made():
    """Memory and speed options keep their digests, so a change after running out of memory restarts nothing."""
    plain = TrainSettings()
    options = {"blocks_to_swap": 20, "attn_mode": "flash", "split_attn": True, "compile": True}
    assert digest_view(TrainSettings(**options)) == digest_view(plain)
    assert digest_view(TrainSettings(gradient_checkpointing_cpu_offload=True)) == digest_view(plain)
    assert digest_view(TrainSettings(quantize="fp8")) != digest_view(plain)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sage_blocks": [3, 1]}, r"found \[3, 1\], expected the first block before the last"),
        ({"sage_blocks": [0, 3], "attn_mode": "sage"}, "no effect with attn_mode: sage"),
        ({"sage_blocks": [-1, 3]}, "greater than or equal to 0"),
        ({"sage_blocks": [3]}, "sage_blocks"),
        ({"guidance_batch": "twice"}, "guidance_batch"),
    ],
)
def test_what_sampling_cannot_do_is_refused(given, message):
    with pytest.raises(ValidationError, match=message):
        SampleSettings.model_validate(given)


def test_only_sampling_has_sage_in_a_range_of_blocks():
    assert SampleSettings.model_validate({"sage_blocks": [0, 53]}).sage_blocks == (0, 53)
    with pytest.raises(ValidationError, match="sage_blocks"):
        TrainSettings.model_validate({"sage_blocks": [0, 53]})
