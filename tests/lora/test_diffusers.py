"""LoRAs to and from diffusers: its own loader and its own transformer say what a file means."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from hv15.errors import UserError
from hv15.lora import apply_lora, convert, convert_file, read_lora, save_lora
from hv15.models import DiT
from tests.lora.diffusers_model import ours, theirs
from tests.lora.samples import linears, random_lora

pytestmark = pytest.mark.numeric


def all_linears_lora(dit: DiT) -> dict[str, Tensor]:
    """Unequal ranks and alphas, on every linear layer, as the official trainer's default has it."""
    modules = linears(dit, inside="")
    ranks = {name: 2 + number % 3 for number, name in enumerate(modules)}
    return random_lora(modules, ranks, {name: 1.0 + rank for name, rank in ranks.items()})


def test_diffusers_computes_with_our_file_what_we_compute(small_dit, peer, tmp_path):
    lora, path = all_linears_lora(small_dit), tmp_path / "lora.safetensors"
    save_lora(tmp_path / "ours.safetensors", lora, {"ss_network_dim": "4"})
    convert_file(tmp_path / "ours.safetensors", path, "diffusers")
    plain = theirs(peer)
    peer.load_lora_adapter(path)
    assert apply_lora(small_dit, lora) == len(linears(small_dit, inside=""))
    difference = theirs(peer) - plain
    assert difference.abs().max() > 0.05
    assert_close(theirs(peer), ours(small_dit), atol=2e-5, rtol=1e-5)


def test_the_tensors_alone_are_enough(small_dit, peer):
    """A caller who passes a state dict has no metadata: the strength must be in the tensors."""
    lora = random_lora(linears(small_dit), rank=4, alpha=12.0)
    peer.load_lora_adapter(convert(lora, "diffusers")[0])
    apply_lora(small_dit, lora)
    assert_close(theirs(peer), ours(small_dit), atol=2e-5, rtol=1e-5)


def test_a_wrong_prefix_does_nothing_there_and_is_caught_here(small_dit, peer):
    lora, _ = convert(random_lora(linears(small_dit)), "diffusers")
    wrong = {f"unet.{key.removeprefix('transformer.')}": tensor for key, tensor in lora.items()}
    plain = theirs(peer)
    peer.load_lora_adapter(wrong)
    assert torch.equal(theirs(peer), plain)  # silently
    with pytest.raises(UserError, match="56 of 56 tensors belong to no part"):
        apply_lora(small_dit, wrong)


@pytest.mark.parametrize("prefixed", [False, True], ids=["save_lora_adapter", "pipeline"])
def test_files_that_diffusers_writes_are_read(small_dit, peer, tmp_path, prefixed: bool):
    """Its alpha is only in the metadata; a pipeline writes `transformer.` before names and settings."""
    from peft import LoraConfig

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
    apply_lora(small_dit, state_dict)
    assert_close(ours(small_dit), theirs(peer), atol=2e-5, rtol=1e-5)
    other, _ = convert(state_dict, "official")
    assert all(not key.startswith("transformer") for key in other)
