"""What a checkpoint is taken for, as `hv15.models.facts.describe` would tell it, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hv15.models.facts import CheckpointFacts
from hv15.models.variants import FoundVariant

HD = {480: (480, 848), 720: (720, 1280)}
"""A usual (height, width) of each class of sizes."""


def facts(name: str = "480p_t2v", source: Any = "path", *, detail: str = "", unknown: str = "", **changes: Any) -> Any:
    found = FoundVariant(name, source, detail, unknown)
    fields: dict[str, Any] = {
        "path": Path("x.safetensors"),
        "model": "the HunyuanVideo 1.5 transformer",
        "layout": "official",
        "dtype": "bfloat16",
        "quantisation": "none",
        "meanflow": found.variant.step_distilled,
        "super_resolution": False,
        "parameters": 1,
        "size": 2,
        "files": 1,
        "variant": found,
        "detected": found if source in ("path", "config.json") else None,
    }
    return CheckpointFacts(**(fields | changes))
