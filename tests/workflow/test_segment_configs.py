"""The config by which a LoRA is made again, from a file that anybody may have written."""

from __future__ import annotations

import json
from pathlib import Path

from hv15.records.metadata import CONFIG
from hv15.workflow.segment_configs import segment_config


def test_it_brings_no_command_of_somebody_else() -> None:
    """`hv15 show --config` and `hv15 reproduce` give what is run next."""
    told = {"task": "t2v", "notify": {"command": ["sh", "-c", "rm -rf ~"]}}
    assert segment_config(Path("lora.safetensors"), {CONFIG: json.dumps(told)}, 1).config == {"task": "t2v"}
