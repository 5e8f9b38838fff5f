"""diffusers' own loader, called as diffusers' users and as the official code call it, does what `hv15 verify` says."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from diffusers.loaders import PeftAdapterMixin
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from torch import Tensor, nn

from hv15.choices import LoRAProgram
from hv15.lora.names import place_of
from hv15.lora.programs.verify import verify

IN, OUT, RANK = 8, 12, 2
PARTS = [f"double_blocks.0.{part}" for part in ("img_attn_q", "img_attn_k", "img_mlp.fc1")]
Tensors = dict[str, Tensor]
Q = {"diffusers": "transformer.transformer_blocks.0.attn.to_q", "official": "double_blocks.0.img_attn_q"}
PREFIX = {"diffusers": "transformer.", "official": ""}
SETTINGS = "lora_adapter_metadata"


class Model(PeftAdapterMixin, nn.Module):
    """Three layers with the names that they have in a program's transformer."""

    def __init__(self, program: LoRAProgram) -> None:
        super().__init__()
        assert program != "musubi"
        for part in PARTS:
            *path, last = place_of(part, program).module.split(".")
            parent: nn.Module = self
            for name in path:
                if not hasattr(parent, name):
                    parent.add_module(name, nn.Module())
                parent = parent.get_submodule(name)
            parent.add_module(last, nn.Linear(IN, OUT, bias=False))


def names(program: LoRAProgram) -> list[str]:
    assert program != "musubi"
    return [PREFIX[program] + place_of(part, program).module for part in PARTS]


def lora(program: LoRAProgram, ranks: tuple[int, ...] = (RANK,) * 3) -> Tensors:
    draw = torch.Generator().manual_seed(1)
    tensors = {}
    for name, rank in zip(names(program), ranks, strict=True):
        tensors[f"{name}.lora_A.weight"] = torch.randn(rank, IN, generator=draw)
        tensors[f"{name}.lora_B.weight"] = torch.randn(OUT, rank, generator=draw)
    return tensors


def settings(program: LoRAProgram, prefix: str | None = None, **changed: object) -> dict[str, str]:
    targets = [name.removeprefix(PREFIX[program]) for name in names(program)]
    content = {"r": RANK, "lora_alpha": RANK, "target_modules": targets, **changed}
    start = PREFIX[program] if prefix is None else prefix
    return {SETTINGS: json.dumps({start + key: value for key, value in content.items()})}


def with_alpha(tensors: Tensors, alpha: float) -> Tensors:
    modules = {key.split(".lora_")[0] for key in tensors}
    return tensors | {f"{name}.alpha": torch.tensor(alpha) for name in modules}


def renamed(tensors: Tensors, old: str, new: str) -> Tensors:
    return {key.replace(old, new): tensor for key, tensor in tensors.items()}


def without(tensors: Tensors, ending: str) -> Tensors:
    return {key: tensor for key, tensor in tensors.items() if not key.endswith(ending)}


def lokr(program: LoRAProgram, w1: tuple[int, int] = (2, 2), rank: int = 0) -> Tensors:
    tensors = {}
    for name in names(program):
        tensors[f"{name}.lokr_w1"] = torch.ones(w1)
        rows, columns = OUT // w1[0], IN // w1[1]
        if rank:
            tensors |= {f"{name}.lokr_w2_a": torch.ones(rows, rank), f"{name}.lokr_w2_b": torch.ones(rank, columns)}
        else:
            tensors[f"{name}.lokr_w2"] = torch.ones(rows, columns)
    return tensors


def magnitudes(program: LoRAProgram, ending: str = "", count: int = 3) -> Tensors:
    return {f"{name}.lora_magnitude_vector{ending}": torch.full((OUT,), 3.0) for name in names(program)[:count]}


def loha(program: LoRAProgram) -> Tensors:
    shapes = {"hada_w1_a": (OUT, 2), "hada_w1_b": (2, IN), "hada_w2_a": (OUT, 2), "hada_w2_b": (2, IN)}
    return {f"{name}x.{part}": torch.ones(shape) for name in names(program) for part, shape in shapes.items()}


Case = Callable[[LoRAProgram], tuple[Tensors, dict[str, str]]]
CASES: dict[str, Case] = {
    "plain": lambda p: (lora(p), {}),
    "unequal ranks": lambda p: (lora(p, (2, 2, 4)), {}),
    "alpha is rank": lambda p: (with_alpha(lora(p), 2.0), {}),
    "alpha": lambda p: (with_alpha(lora(p), 1.0), {}),
    "alpha of 0": lambda p: (with_alpha(lora(p), 0.0), {}),
    "strength in the metadata": lambda p: (lora(p), settings(p, lora_alpha=6)),
    "alpha in tensors and metadata": lambda p: (with_alpha(lora(p), 1.0), settings(p)),
    "patterns in the metadata": lambda p: (
        lora(p, (2, 2, 4)),
        settings(p, rank_pattern={names(p)[2].removeprefix(PREFIX[p]): 4}),
    ),
    "rank-stabilised": lambda p: (lora(p), settings(p, use_rslora=True)),
    "settings of the other program": lambda p: (lora(p), settings(p, "" if p == "diffusers" else "transformer.")),
    "kohya's parts": lambda p: (renamed(renamed(lora(p), "lora_A", "lora_down"), "lora_B", "lora_up"), {}),
    "the name of an adapter": lambda p: (renamed(lora(p), ".weight", ".default.weight"), {}),
    "no prefix": lambda p: (renamed(lora(p), "transformer.", ""), {}),
    "a foreign prefix": lambda p: ({f"base_model.model.{key}": tensor for key, tensor in lora(p).items()}, {}),
    "a module too many": lambda p: (
        lora(p)
        | {
            f"{PREFIX[p]}bogus.lora_A.weight": torch.ones(2, IN),
            f"{PREFIX[p]}bogus.lora_B.weight": torch.ones(OUT, 2),
        },
        {},
    ),
    "no lora_B": lambda p: (without(lora(p), f"{Q[p].split('.')[-1]}.lora_B.weight"), {}),
    "no lora_A": lambda p: (without(lora(p), f"{Q[p].split('.')[-1]}.lora_A.weight"), {}),
    "ranks that differ": lambda p: (lora(p) | {f"{names(p)[0]}.lora_B.weight": torch.ones(OUT, 3)}, {}),
    "dora": lambda p: (lora(p) | magnitudes(p), {}),
    "dora as peft writes it": lambda p: (lora(p) | magnitudes(p, ".weight"), {}),
    "dora of one": lambda p: (lora(p) | magnitudes(p, count=1), {}),
    "dora of lycoris": lambda p: (lora(p) | {f"{name}.dora_scale": torch.ones(OUT, 1) for name in names(p)}, {}),
    "a difference": lambda p: (lora(p) | {f"{names(p)[0]}.diff": torch.ones(OUT, IN)}, {}),
    "loha": lambda p: (renamed(loha(p), "x.hada", ".hada"), {}),
    "lokr": lambda p: (lokr(p), {}),
    "lokr, factored": lambda p: (lokr(p, rank=1), {}),
    "lokr, factored at a high rank": lambda p: (lokr(p, rank=3), {}),
    "lokr and lora": lambda p: (
        {key: tensor for key, tensor in lokr(p).items() if not key.startswith(names(p)[2])}
        | {key: tensor for key, tensor in lora(p).items() if key.startswith(names(p)[2])},
        {},
    ),
    "lokr of no one factor": lambda p: (lokr(p, (3, 4)) | {f"{names(p)[0]}.lokr_w1": torch.ones(6, 2)}, {}),
    "lokr with alpha": lambda p: (
        lokr(p, rank=1) | {f"{name}.alpha": torch.tensor(3.0) for name in names(p)},
        {},
    ),
}


def loaded(path: Path, program: LoRAProgram) -> dict[str, Tensor] | None:
    """{module: change of its weight} after diffusers' loader; None if it raises."""
    torch.manual_seed(0)
    model = Model(program)
    before = {name: layer.weight.clone() for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    how = {"prefix": None, "use_safetensors": True} if program == "official" else {}
    try:
        model.load_lora_adapter(path, **how)
    except Exception:
        return None
    changed = {}
    for name, layer in model.named_modules():
        if isinstance(layer, BaseTunerLayer):
            with torch.no_grad():
                changed[name] = layer(torch.eye(IN)).T - before[name]
    return changed


def meant(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], module: str) -> Tensor | None:
    """The change that the file means, where the kind says it without the base weights."""
    read = {key.removeprefix(f"{module}."): tensor for key, tensor in tensors.items() if key.startswith(f"{module}.")}
    content = {
        key.removeprefix("transformer."): value for key, value in json.loads(metadata.get(SETTINGS, "{}")).items()
    }
    if (
        "lora_A.weight" in read
        and "lora_B.weight" in read
        and not any("magn" in part or "dora" in part for part in read)
    ):
        rank = read["lora_A.weight"].shape[0]
        alpha = content.get("lora_alpha", rank)
        if content.get("rank_pattern") and rank == 4:
            alpha = RANK
        strength = alpha / (rank**0.5 if content.get("use_rslora") else rank)
        if "alpha" in read:
            strength = read["alpha"].item() / rank
        return read["lora_B.weight"] @ read["lora_A.weight"] * strength
    if "lokr_w1" in read:
        w2 = read["lokr_w2"] if "lokr_w2" in read else read["lokr_w2_a"] @ read["lokr_w2_b"]
        rank = read["lokr_w2_b"].shape[0] if "lokr_w2_b" in read else 1
        return torch.kron(read["lokr_w1"], w2) * (read["alpha"].item() / rank if "alpha" in read else 1.0)
    return None


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("program", ["diffusers", "official"])
def test_what_the_loader_does(tmp_path: Path, program: LoRAProgram, case: str) -> None:
    tensors, metadata = CASES[case](program)
    path = tmp_path / "lora.safetensors"
    save_file(tensors, path, metadata)
    said = verify(path, program).verdicts
    found = loaded(path, program)
    stops = any(verdict.outcome == "stops" for verdict in said.values())
    if found is None or stops:
        # The official code pins an older diffusers, and settings are read on request alone: see `why`.
        assert stops
        whys = {verdict.why for verdict in said.values() if verdict.outcome == "stops"}
        assert found is None or any("knows no LoKr" in why or "use_safetensors=True" in why for why in whys)
        return
    for name in names(program):
        change = found.get(name.removeprefix(PREFIX[program]))
        outcomes = {
            verdict.outcome
            for key, verdict in said.items()
            if key.startswith(f"{name}.") and not key.endswith((".alpha", ".diff", ".dora_scale"))
        }
        expected = meant(path, tensors, metadata, name)
        if case == "unequal ranks" and program == "official" and name == names(program)[2]:
            assert outcomes == {"wrong"}  # there: 0.42.1 has learnt it since
        elif any(key.startswith(f"{name}.lora_magnitude_vector") for key in tensors):
            assert outcomes == {"loads"}
            assert change is not None
            assert change.abs().max() > 0.1
        elif change is None or not change.any():
            assert "loads" not in outcomes
        elif expected is None:
            assert outcomes == {"wrong"}
        elif torch.allclose(change, expected, atol=1e-4):
            assert "loads" in outcomes
        else:
            assert outcomes == {"wrong"}
    if case == "no prefix" and program == "diffusers":
        assert not found
