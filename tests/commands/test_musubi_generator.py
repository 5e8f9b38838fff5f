"""Every setting of musubi-tuner's generator has its counterpart, which docs/sampling.md names and which is there."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest

from hv15.commands.options import COMMANDS
from hv15.commands.options.sample import Sample
from hv15.config.settings import Settings

PAGE = Path(__file__).parents[2] / "docs/sampling.md"
THEIRS = re.findall(
    r"\w+",
    """
    dit disable_numpy_memmap vae vae_dtype vae_sample_size vae_enable_patch_conv text_encoder text_encoder_cpu byt5
    image_encoder lora_weight lora_multiplier include_patterns exclude_patterns save_merged_model prompt negative_prompt
    video_size video_length fps infer_steps save_path seed cpu_noise guidance_scale image_path flow_shift fp8 fp8_scaled
    device attn_mode blocks_to_swap use_pinned_memory_for_block_swap output_type no_metadata latent_path lycoris compile
    compile_backend compile_mode compile_dynamic compile_fullgraph compile_cache_size_limit from_file interactive
    """,
)
"""The options of hv_1_5_generate_video.py, version 0.3."""


def rows() -> dict[str, str]:
    """Each of their options -> the words about what is here instead."""
    _, _, section = PAGE.read_text(encoding="utf-8").partition("## Coming from musubi-tuner's generator")
    found = {}
    for line in section.partition("\n## ")[0].splitlines():
        if line.startswith("| `--"):
            theirs, ours = line.strip("| ").split(" | ")
            found |= dict.fromkeys(re.findall(r"`--(\w+)`", theirs), ours)
    return found


def test_none_is_left_out() -> None:
    assert sorted(rows()) == sorted(THEIRS)


@pytest.mark.parametrize("option", THEIRS)
def test_what_is_named_is_there(option: str) -> None:
    words = rows()[option].partition(";")[0]
    for name in re.findall(r"`--?([a-z-]+)", words):
        assert name in "io" or name.replace("-", "_") in {field.name for field in fields(Sample)}
    for command in re.findall(r"`hv15 (\w+)`", words):
        assert command in {each.name for each in COMMANDS}
    for section, name in re.findall(r"`(sample|cache|runtime)\.(\w+)", words):
        assert name in get_type_hints(get_type_hints(Settings)[section])
