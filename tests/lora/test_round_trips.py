"""From any layout to any other, with random kinds, ranks, alphas and missing modules: the weights change as before."""

from __future__ import annotations

import itertools
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from hv15.choices import LoRALayout, LoRAProgram
from hv15.errors import UserError
from hv15.lora import convert, save_lora
from hv15.lora.changes import read_changes
from hv15.lora.kinds import BASE_MAGNITUDE, MAGNITUDE
from hv15.lora.names import LORA_LAYOUTS
from hv15.lora.programs.verify import verify
from tests.lora.samples import kohya

SHAPES = {
    "double_blocks.0.img_attn_q": (6, 8),
    "double_blocks.0.img_attn_k": (6, 8),
    "double_blocks.0.img_attn_v": (6, 8),
    "double_blocks.0.img_mlp.fc1": (4, 6),
    "txt_in.individual_token_refiner.blocks.0.self_attn_qkv": (12, 4),
    "final_layer.adaLN_modulation.1": (8, 4),
}
DRAW = torch.Generator().manual_seed(3)
WEIGHTS = {name: torch.randn(shape, generator=DRAW) for name, shape in SHAPES.items()}
FULL = 12
"""A rank at which the nearest LoRA is exact."""
PLAIN = ("lora", "loha", "lokr", "diff")
DEPENDENT = ("dora", "dora of the changed norm", "dora by columns")
Tensors = dict[str, Tensor]


class Drawn(NamedTuple):
    kind: str
    rank: int
    alpha: float


def weights(module: str) -> Tensor:
    return WEIGHTS[module]


def tensors_of(module: str, drawn: Drawn, draw: torch.Generator) -> Tensors:
    rows, columns = SHAPES[module]

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw)

    rank, alpha = drawn.rank, {"alpha": torch.tensor(drawn.alpha)}
    parts: Tensors
    match drawn.kind:
        case "loha":
            parts = {f"hada_w{i}_a": random(rows, rank) for i in (1, 2)}
            parts |= {f"hada_w{i}_b": random(rank, columns) for i in (1, 2)} | alpha
        case "lokr":
            parts = {"lokr_w1": random(2, 2), "lokr_w2_a": random(rows // 2, rank)}
            parts |= {"lokr_w2_b": random(rank, columns // 2)} | alpha
        case "diff":
            parts = {"diff": random(rows, columns)}
        case _:
            parts = {"lora_down.weight": random(rank, columns), "lora_up.weight": random(rows, rank)} | alpha
    match drawn.kind:
        case "dora":
            parts[BASE_MAGNITUDE] = random(rows, 1).abs() + 0.5
        case "dora of the changed norm":
            parts[MAGNITUDE] = random(rows, 1).abs() + 0.5
        case "dora by columns":
            parts[MAGNITUDE] = random(1, columns).abs() + 0.5
    return {f"{kohya(module)}.{part}": tensor for part, tensor in parts.items()}


def merged(file: Tensors) -> Tensors:
    """The changed weights of all layers, by official name."""
    found = read_changes(file)
    return {name: found[name].merged(weight, 1.0) if name in found else weight for name, weight in WEIGHTS.items()}


def modules(kinds: tuple[str, ...]) -> st.SearchStrategy[dict[str, Drawn]]:
    drawn = st.builds(Drawn, st.sampled_from(kinds), st.integers(1, 3), st.sampled_from([0.5, 1.0, 2.0, 3.0, 7.0]))
    return st.dictionaries(st.sampled_from(sorted(SHAPES)), drawn, min_size=1)


PAIRS = pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(*pair, marks=[] if "kohya" in pair or pair in pairwise(LORA_LAYOUTS) else [pytest.mark.slow])
        for pair in itertools.product(LORA_LAYOUTS, repeat=2)
    ],
)
"""Every layout, after every other."""


@PAIRS
@given(drawn=modules(PLAIN), seed=st.integers(0, 9))
@settings(max_examples=3, derandomize=True, deadline=None)
def test_without_the_base(drawn: dict[str, Drawn], first: LoRALayout, second: LoRALayout, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    file = {key: tensor for name, each in drawn.items() for key, tensor in tensors_of(name, each, draw).items()}
    between, told = convert(file, first, svd_rank=FULL)
    after, _ = convert(between, second, metadata=told, svd_rank=FULL)
    assert_close(merged(after), merged(file), atol=2e-4, rtol=2e-4)


@PAIRS
@given(drawn=modules((*PLAIN[:1], *DEPENDENT)), seed=st.integers(0, 9))
@settings(max_examples=2, derandomize=True, deadline=None)
def test_with_the_base(drawn: dict[str, Drawn], first: LoRALayout, second: LoRALayout, seed: int) -> None:
    """LoRA beside DoRA by any norm; a LoRA without a DoRA in the same file keeps what it does."""
    draw = torch.Generator().manual_seed(seed)
    whole = {name: each for name, each in drawn.items() if not (name.startswith("txt_in") and "dora" in each.kind)}
    file = {key: tensor for name, each in whole.items() for key, tensor in tensors_of(name, each, draw).items()}
    if not file:
        return
    between, told = convert(file, first, svd_rank=FULL, weights=weights)
    after, _ = convert(between, second, metadata=told, svd_rank=FULL, weights=weights)
    assert_close(merged(after), merged(file), atol=5e-4, rtol=5e-4)


PROGRAMS: dict[LoRALayout, LoRAProgram] = {
    "kohya": "musubi",
    "comfyui": "comfyui",
    "comfyui_kohya": "comfyui",
    "diffusers": "diffusers",
    "official": "official",
}


@given(drawn=modules((*PLAIN[:3], *DEPENDENT[:2])), layout=st.sampled_from(sorted(PROGRAMS)))
@settings(max_examples=60, derandomize=True, deadline=None)
def test_what_is_written_for_a_program_is_loaded_there(drawn: dict[str, Drawn], layout: LoRALayout) -> None:
    """By the rules that are themselves compared with the programs' own loaders."""
    if layout == "kohya":  # musubi has no DoRA
        drawn = {name: each for name, each in drawn.items() if "dora" not in each.kind}
    draw = torch.Generator().manual_seed(1)
    file = {key: tensor for name, each in drawn.items() for key, tensor in tensors_of(name, each, draw).items()}
    if not file:
        return
    tensors, told = convert(file, layout, svd_rank=FULL, weights=weights)
    with TemporaryDirectory() as folder:
        save_lora(Path(folder, "lora.safetensors"), tensors, told)
        found = verify(Path(folder, "lora.safetensors"), PROGRAMS[layout])
    assert found.is_right, found.by_verdict()


def test_what_needs_the_base_says_so() -> None:
    file = tensors_of("double_blocks.0.img_mlp.fc1", Drawn("dora", 2, 1.0), torch.Generator())
    for layout in ("diffusers", "official", "peft"):
        with pytest.raises(UserError, match="--base"):
            convert(file, layout)
