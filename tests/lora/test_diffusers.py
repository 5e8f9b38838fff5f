"""LoRAs to and from diffusers: its own loader and its own transformer say what a file means."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import HunyuanVideo15Transformer3DModel
from peft import LoraConfig
from torch import Tensor, nn
from torch.testing import assert_close

from hv15.errors import UserError
from hv15.lora import apply_lora, convert, convert_file, read_lora, save_lora
from hv15.models import Condition, DiT, load_dit, save_dit
from tests.lora.samples import linears, random_lora
from tests.models.golden_dit import TINY

SIZES = replace(TINY, glyph_hidden=2048)  # a size that diffusers fixes


@pytest.fixture(scope="module")
def dit_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One set of random weights for both models, in diffusers' layout."""
    torch.manual_seed(11)
    path = tmp_path_factory.mktemp("dit") / "diffusion_pytorch_model.safetensors"
    save_dit(DiT(SIZES), path, layout="diffusers")
    return path


@pytest.fixture
def dit(dit_path: Path) -> DiT:
    return load_dit(dit_path, config=SIZES)


@pytest.fixture
def peer(dit_path: Path) -> HunyuanVideo15Transformer3DModel:
    from safetensors.torch import load_file

    with torch.device("meta"):
        model = HunyuanVideo15Transformer3DModel(
            in_channels=SIZES.in_channels,
            out_channels=SIZES.latent_channels,
            num_attention_heads=SIZES.num_heads,
            attention_head_dim=SIZES.head_dim,
            num_layers=SIZES.num_blocks,
            num_refiner_layers=SIZES.refiner_blocks,
            text_embed_dim=SIZES.text_dim,
            text_embed_2_dim=SIZES.glyph_dim,
            image_embed_dim=SIZES.vision_dim,
            rope_axes_dim=SIZES.rope_dims,
            rope_theta=SIZES.rope_theta,
        )
    model.load_state_dict(load_file(dit_path), assign=True)
    model.rope = type(model.rope)(1, 1, SIZES.rope_dims, SIZES.rope_theta)
    return model.eval()


def given() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(5)
    return {
        "hidden_states": torch.randn(1, SIZES.in_channels, 2, 4, 4, generator=draw),
        "timestep": torch.tensor([431.0]),
        "encoder_hidden_states": torch.randn(1, 6, SIZES.text_dim, generator=draw),
        "encoder_attention_mask": torch.ones(1, 6, dtype=torch.long),
        "encoder_hidden_states_2": torch.randn(1, 3, SIZES.glyph_dim, generator=draw),
        "encoder_attention_mask_2": torch.ones(1, 3, dtype=torch.long),
        "image_embeds": torch.randn(1, 5, SIZES.vision_dim, generator=draw),
    }


@torch.no_grad()
def theirs(model: nn.Module) -> Tensor:
    return model(**given(), return_dict=False)[0]


@torch.no_grad()
def ours(dit: DiT) -> Tensor:
    x = given()
    cond = Condition(x["encoder_hidden_states"], [6], x["encoder_hidden_states_2"], [3], x["image_embeds"])
    return dit(x["hidden_states"], x["timestep"], cond)


def all_linears_lora(dit: DiT) -> dict[str, Tensor]:
    """Unequal ranks and alphas, on every linear layer, as the official trainer's default has it."""
    modules = linears(dit, inside="")
    ranks = {name: 2 + number % 3 for number, name in enumerate(modules)}
    return random_lora(modules, ranks, {name: 1.0 + rank for name, rank in ranks.items()})


def test_diffusers_computes_with_our_file_what_we_compute(dit, peer, tmp_path):
    lora, path = all_linears_lora(dit), tmp_path / "lora.safetensors"
    save_lora(tmp_path / "ours.safetensors", lora, {"ss_network_dim": "4"})
    convert_file(tmp_path / "ours.safetensors", path, "diffusers")
    plain = theirs(peer)
    peer.load_lora_adapter(path)
    assert apply_lora(dit, lora) == len(linears(dit, inside=""))
    difference = theirs(peer) - plain
    assert difference.abs().max() > 0.05
    assert_close(theirs(peer), ours(dit), atol=2e-5, rtol=1e-5)


def test_the_tensors_alone_are_enough(dit, peer):
    """A caller who passes a state dict has no metadata: the strength must be in the tensors."""
    lora = random_lora(linears(dit), rank=4, alpha=12.0)
    peer.load_lora_adapter(convert(lora, "diffusers")[0])
    apply_lora(dit, lora)
    assert_close(theirs(peer), ours(dit), atol=2e-5, rtol=1e-5)


def test_a_wrong_prefix_does_nothing_there_and_is_caught_here(dit, peer):
    lora, _ = convert(random_lora(linears(dit)), "diffusers")
    wrong = {f"unet.{key.removeprefix('transformer.')}": tensor for key, tensor in lora.items()}
    plain = theirs(peer)
    peer.load_lora_adapter(wrong)
    assert torch.equal(theirs(peer), plain)  # silently
    with pytest.raises(UserError, match="56 of 56 tensors belong to no part"):
        apply_lora(dit, wrong)


@pytest.mark.parametrize("prefixed", [False, True], ids=["save_lora_adapter", "pipeline"])
def test_files_that_diffusers_writes_are_read(dit, peer, tmp_path, prefixed: bool):
    """Its alpha stands in the metadata only; a pipeline writes `transformer.` before names and settings."""
    every = [name for name, module in peer.named_modules() if isinstance(module, nn.Linear)]
    config = LoraConfig(r=4, lora_alpha=10, target_modules=every, rank_pattern={"attn.to_q": 2, "proj_out": 3})
    peer.add_adapter(config)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in peer.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    if prefixed:
        from diffusers.loaders.lora_base import LoraBaseMixin, _pack_dict_with_prefix
        from peft.utils import get_peft_model_state_dict

        settings = _pack_dict_with_prefix(config.to_dict(), "transformer")
        settings = {key: list(value) if isinstance(value, set) else value for key, value in settings.items()}
        state = _pack_dict_with_prefix(get_peft_model_state_dict(peer, adapter_name="default"), "transformer")
        LoraBaseMixin.write_lora_layers(state, tmp_path, True, "lora.safetensors", None, True, settings)
    else:
        peer.save_lora_adapter(tmp_path, adapter_name="default", weight_name="lora.safetensors")
    state_dict, _ = read_lora(tmp_path / "lora.safetensors")
    apply_lora(dit, state_dict)
    assert_close(ours(dit), theirs(peer), atol=2e-5, rtol=1e-5)
    other, _ = convert(state_dict, "official")
    assert all(not key.startswith("transformer") for key in other)
