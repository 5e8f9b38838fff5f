"""Strings and ByT5 ids against those of the official program."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hv15.models.templates import SYSTEM_VIDEO, glyph_ids, glyph_text, render_prompt

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "text_templates.json").read_text(encoding="utf-8"))


def test_system_message():
    assert GOLDEN["system_video"] == SYSTEM_VIDEO


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["prompt"][:12])
def test_golden_prompts(case):
    assert render_prompt(case["prompt"]) == case["rendered"]
    text = glyph_text(case["prompt"])
    assert text == case["byt5_formatted"]
    if text is not None:
        assert glyph_ids(text) == case["byt5_input_ids_valid"]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("no quotes, it's plain", None),
        ('“后” before "front"', 'Text "后". Text "front". '),  # in order of appearance, not straight quotes first
        ('"a" and "b" and "a"', 'Text "a". Text "b". '),
        ('an empty "" pair', 'Text "". '),
        ('a quote "over\ntwo lines"', None),
        ('odd "one" left " open', 'Text "one". '),
        ("«other» and `odd` marks", None),
    ],
)
def test_quoted_texts(prompt, expected):
    assert glyph_text(prompt) == expected
    assert glyph_text(prompt) == _diffusers_glyph_text(prompt)


def _diffusers_glyph_text(prompt):
    from diffusers.pipelines.hunyuan_video1_5.pipeline_hunyuan_video1_5 import extract_glyph_texts

    return extract_glyph_texts(prompt)


@pytest.mark.parametrize("text", ["", 'Text "再见 é". ', "x" * 254, "x" * 255, "x" * 256, "é" * 300])
def test_bytes_as_transformers(text):
    from transformers import ByT5Tokenizer

    expected = ByT5Tokenizer()(text, max_length=256, truncation=True)["input_ids"]
    assert glyph_ids(text) == expected


def test_planning_needs_no_torch():
    code = "import sys, hv15.models.templates, hv15.models.tokenizer; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
