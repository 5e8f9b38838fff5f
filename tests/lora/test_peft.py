"""DoRA and whole adapters to and from PEFT and diffusers: their own loaders and their model say what a file means."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoHaConfig, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.testing import assert_close

from hv15.errors import UserError
from hv15.lora import apply_lora, convert_file, read_lora, save_lora
from hv15.lora.kinds import BASE_MAGNITUDE, MAGNITUDE
from hv15.models import DiT
from tests.lora.comfyui import changed, weight_name
from tests.lora.diffusers_model import ours, theirs
from tests.lora.samples import kohya, linears, random_lora

ADAPTER = "adapter_model.safetensors"


def some(dit: DiT) -> dict[str, nn.Linear]:
    wanted = ("double_blocks.0.img_attn_", "double_blocks.0.img_mlp", "final_layer.adaLN")
    return {name: layer for name, layer in linears(dit, inside="").items() if name.startswith(wanted)}


def dora(dit: DiT, part: str, layers: dict[str, nn.Linear] | None = None) -> dict[str, Tensor]:
    """A LoRA with magnitudes near the rows' norms, so that both readings of them differ by little, but differ."""
    layers = some(dit) if layers is None else layers
    lora = random_lora(layers, rank=3, alpha=5.0)
    draw = torch.Generator().manual_seed(2)
    for name, layer in layers.items():
        factors = 0.6 + torch.rand(layer.out_features, 1, generator=draw)
        lora[f"{kohya(name)}.{part}"] = layer.weight.norm(dim=1, keepdim=True) * factors
    return lora


@pytest.mark.parametrize("kind", ["lora", "loha", "dora", "dora of the changed norm"])
def test_peft_computes_what_we_compute(
    small_dit: DiT, dit_path: Path, peer: nn.Module, tmp_path: Path, kind: str
) -> None:
    match kind:
        case "lora":
            lora = random_lora(some(small_dit), {name: 2 + i % 3 for i, name in enumerate(some(small_dit))}, 3.0)
        case "loha":
            lora = {}
            draw = torch.Generator().manual_seed(5)
            for name, layer in some(small_dit).items():
                for i in (1, 2):
                    lora[f"{kohya(name)}.hada_w{i}_a"] = torch.randn(layer.out_features, 2, generator=draw) * 0.4
                    lora[f"{kohya(name)}.hada_w{i}_b"] = torch.randn(2, layer.in_features, generator=draw) * 0.4
                lora[f"{kohya(name)}.alpha"] = torch.tensor(3.0)
        case _:
            lora = dora(small_dit, BASE_MAGNITUDE if kind == "dora" else MAGNITUDE)
    save_lora(tmp_path / "ours.safetensors", lora, {})
    convert_file(tmp_path / "ours.safetensors", tmp_path / ADAPTER, "peft", base=dit_path)
    plain = theirs(peer)
    found = theirs(PeftModel.from_pretrained(peer, tmp_path))
    apply_lora(small_dit, lora)
    assert (found - plain).abs().max() > 0.01
    assert_close(found, ours(small_dit), atol=3e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["lora", "loha", "dora"])
def test_adapters_that_peft_writes_are_read(small_dit: DiT, peer: nn.Module, tmp_path: Path, kind: str) -> None:
    """Their strength stands only in the config file beside them."""
    targets = r"transformer_blocks\.\d+\.(attn\.to_q|attn\.add_k_proj|ff\.net\.2)"
    if kind == "loha":
        config = LoHaConfig(r=3, alpha=7, target_modules=targets)
    else:
        config = LoraConfig(r=3, lora_alpha=7, target_modules=targets, use_rslora=True, use_dora=kind == "dora")
    torch.manual_seed(3)
    model = get_peft_model(peer, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "hada_w2_a" in name:
                parameter.normal_(std=0.2)
            if "magnitude" in name:
                parameter.mul_(1.1)
    model.save_pretrained(tmp_path)
    apply_lora(small_dit, read_lora(tmp_path / ADAPTER)[0])
    assert_close(ours(small_dit), theirs(model), atol=3e-5, rtol=1e-4)


def test_a_dora_in_diffusers(small_dit: DiT, dit_path: Path, peer: nn.Module, tmp_path: Path) -> None:
    lora = dora(small_dit, BASE_MAGNITUDE)
    save_lora(tmp_path / "ours.safetensors", lora, {})
    convert_file(tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors", "diffusers", base=dit_path)
    peer.load_lora_adapter(tmp_path / "theirs.safetensors")
    apply_lora(small_dit, lora)
    assert_close(theirs(peer), ours(small_dit), atol=3e-5, rtol=1e-4)


@pytest.mark.parametrize("which", ["all", "q alone"])
def test_a_dora_of_lycoris_in_comfyui(small_dit: DiT, dit_path: Path, tmp_path: Path, which: str) -> None:
    """ComfyUI divides by other norms, and joins q, k and v: the base weights give both."""
    layers = {name: layer for name, layer in some(small_dit).items() if "img_attn_" in name}
    if which == "q alone":
        layers = {name: layer for name, layer in layers.items() if name.endswith("attn_q")}
    lora = dora(small_dit, MAGNITUDE, layers)
    save_lora(tmp_path / "theirs.safetensors", lora, {})
    with pytest.raises(UserError, match="--base"):
        convert_file(tmp_path / "theirs.safetensors", tmp_path / "comfy.safetensors")
    convert_file(tmp_path / "theirs.safetensors", tmp_path / "comfy.safetensors", base=dit_path)
    attention = [small_dit.get_submodule(f"double_blocks.0.img_attn_{part}") for part in "qkv"]
    key = "double_blocks.0.img_attn_qkv.weight"
    assert weight_name(key) == "double_blocks.0.img_attn.qkv.weight"
    weights = {key: torch.cat([layer.weight for layer in attention])}
    if which == "all":
        weights["double_blocks.0.img_attn_proj.weight"] = small_dit.get_submodule(
            "double_blocks.0.img_attn_proj"
        ).weight
    found, skipped = changed(load_file(tmp_path / "comfy.safetensors"), weights)
    assert not skipped
    for rows, name in zip(found[key].chunk(3), "qkv", strict=True):
        layer = small_dit.get_submodule(f"double_blocks.0.img_attn_{name}")
        start = kohya(f"double_blocks.0.img_attn_{name}")
        weight = layer.weight.double()
        if f"{start}.{MAGNITUDE}" in lora:
            up, down = (lora[f"{start}.lora_{side}.weight"].double() for side in ("up", "down"))
            weight = weight + up @ down * 5 / 3
            weight = weight * lora[f"{start}.{MAGNITUDE}"] / weight.norm(dim=1, keepdim=True)
        assert_close(rows, weight, atol=1e-5, rtol=1e-5)
