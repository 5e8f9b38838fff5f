"""The names of the rules, against the rules themselves."""

from __future__ import annotations

import re
from pathlib import Path

from hv15.records.outputs import LATENTS
from hv15.records.rules import Rule, TargetRule, job_name, rule_words

REPOSITORY = Path(__file__).parents[2]
_RULE = re.compile(r"^\s*rule (\w+):|\bRUNS\.rule\(\"(\w+)\"\)", re.MULTILINE)
"""A rule, or one of those that are made in a loop."""
NO_RESULTS = {"demo", "remote"}
"""Files of rules that make none of a project's results: the demo's base, and copies of remote storage."""
RESULTS = [path for path in (REPOSITORY / "rules").glob("*.smk") if path.stem not in NO_RESULTS]


def test_every_rule_is_known_and_there_is_no_other() -> None:
    found = {name for path in RESULTS for match in _RULE.findall(path.read_text()) for name in match if name}
    of_samples = {LATENTS.rule_of(step) for step in (None, "{step}")}  # made in a loop
    assert LATENTS.enlarging_rule == Rule.UPSAMPLE_LATENTS
    assert (found - {*TargetRule}) | of_samples == set(Rule)
    assert all(rule_words(rule) != rule for rule in Rule)


def test_jobs_are_called_by_what_they_do() -> None:
    assert job_name("train") == "train the LoRA"
    assert job_name("sample_video", ["red-circle"]) == "decode to video red-circle"
    assert job_name("checkpoint_latents", ["90", "red-circle"]) == "sample with the LoRA of step 90 red-circle"
    assert job_name("upsample_latents", ["red-circle"]) == "enlarge red-circle"
    assert job_name("upsample_video", ["red-circle"]) == "decode the enlarged to video red-circle"
    assert job_name("keep_checkpoint", ["90"]) == "keep the LoRA of step 90"
    assert job_name("download_text_encoder") == "download text encoder"
    assert job_name("train", [], "small") == "small: train the LoRA"
    assert job_name("of_a_person", ["x"]) == "of a person x"
