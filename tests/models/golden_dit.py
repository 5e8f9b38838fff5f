"""The tiny transformer of tests/golden and its recorded cases."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from hv15.models import Condition, DiT, DiTConfig
from tests.models.copies import copied

GOLDEN = Path(__file__).parents[1] / "golden"
KEYS = Path(__file__).parents[1] / "keys"
TINY = DiTConfig(
    hidden_size=48,
    num_heads=2,
    num_blocks=2,
    rope_dims=(4, 10, 10),
    latent_channels=4,
    text_dim=40,
    glyph_dim=32,
    glyph_hidden=36,
    vision_dim=24,
)


@cache
def tensors(name: str) -> dict[str, Tensor]:
    return load_file(GOLDEN / f"{name}.safetensors")


def golden_dit(extra: dict[str, Tensor] | None = None) -> DiT:
    """The official weights, loaded strictly under their own names."""
    return copied(_loaded()) if extra is None else _load(extra)


@cache
def _loaded() -> DiT:
    return _load(None)


def _load(extra: dict[str, Tensor] | None) -> DiT:
    with torch.device("meta"):
        dit = DiT(replace(TINY, meanflow=extra is not None))
    state = {key: value.clone() for key, value in (tensors("dit_weights") | (extra or {})).items()}
    dit.load_state_dict(state, strict=True, assign=True)
    return dit.eval().requires_grad_(False)


def case_info() -> dict[str, dict[str, Any]]:
    return json.loads((GOLDEN / "dit_cases.json").read_text())


def case(name: str) -> dict[str, Tensor]:
    """Inputs, middle results and output of a case, by their short names ("in/text_states")."""
    prefix = name + "/"
    return {key.removeprefix(prefix): value for key, value in tensors("dit_cases").items() if key.startswith(prefix)}


def in_double(recorded: dict[str, Tensor]) -> dict[str, Tensor]:
    """A case for a transformer in double precision."""
    return {key: value.double() if value.is_floating_point() else value for key, value in recorded.items()}


def condition(recorded: dict[str, Tensor], *, image: bool) -> Condition:
    return Condition(
        text=recorded["in/text_states"],
        text_lengths=recorded["in/text_mask"].sum(1).tolist(),
        glyphs=recorded["in/byt5_states"],
        glyph_lengths=recorded["in/byt5_mask"].sum(1).tolist(),
        vision=recorded["in/vision_states"] if image else None,
    )


def key_table(name: str) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a full-size checkpoint; blocks that the table lists once are repeated."""
    table = json.loads((KEYS / f"{name}.json").read_text())
    keys = {key: tuple(shape) for key, shape in table["keys"].items()}
    for pattern, text in table["_info"]["repeated"].items():
        for number in range(int(text.split()[0])):
            for key, shape in list(keys.items()):
                if key.startswith(first := pattern.replace(".N.", ".0.")):
                    keys[pattern.replace(".N.", f".{number}.") + key.removeprefix(first)] = shape
    assert len(keys) == table["_info"]["total_tensors"]
    return keys
