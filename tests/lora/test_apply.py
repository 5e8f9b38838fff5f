"""Finished LoRAs beside the weights and inside them, of every layout and kind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hv15.errors import UserError
from hv15.lora import LoRANetwork, apply_lora, convert, merge_lora
from hv15.models import DiT
from tests.lora.samples import delta, kohya, linears, random_lora, run
from tests.models.golden_dit import golden_dit

pytestmark = pytest.mark.numeric

Q = "double_blocks.0.img_attn_q"


@pytest.fixture
def dit() -> DiT:
    return golden_dit()


def changed(*loras: tuple[dict[str, Tensor], float]) -> DiT:
    """The model with weights changed by the formula, in float64."""
    dit = golden_dit()
    for tensors, multiplier in loras:
        for name, module in linears(dit, inside="").items():
            module.weight.copy_(module.weight.double() + delta(tensors, name) * multiplier)
    return dit


@pytest.mark.parametrize("layout", ["kohya", "comfyui", "diffusers", "official"])
@pytest.mark.parametrize("put", [apply_lora, merge_lora])
def test_every_layout_has_the_same_effect(dit: DiT, layout: str, put):
    tensors = random_lora(linears(dit), rank=4, alpha=6.0)
    expected = run(changed((tensors, 0.7)))
    assert put(dit, convert(tensors, layout)[0], 0.7) == 28
    assert_close(run(dit), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("put", [apply_lora, merge_lora])
def test_layers_outside_the_blocks(dit: DiT, put):
    """The official trainer's default reaches every linear layer; the refiner's q, k, v are joined there."""
    tensors = random_lora(linears(dit, inside=""), rank=3)
    expected = run(changed((tensors, 1.0)))
    assert put(dit, convert(tensors, "official")[0]) == len(linears(dit, inside=""))
    assert_close(run(dit), expected, atol=1e-5, rtol=0)


def test_several_add_up_beside_a_network_in_training(dit: DiT):
    first, second = random_lora(linears(dit), rank=2), random_lora({Q: (48, 48)}, rank=8, alpha=3.0)
    network = LoRANetwork(dit, rank=4, alpha=4, include=["txt_mlp"])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0.02)
    expected = run(changed((first, 0.5), (second, -1.25), (network.state_dict(), 1.0)))
    apply_lora(dit, first, 0.5)
    apply_lora(dit, second, -1.25)
    assert_close(run(dit), expected, atol=1e-5, rtol=0)


def test_strength_zero_is_no_lora(dit: DiT):
    plain, tensors = run(dit), random_lora(linears(dit))
    apply_lora(dit, tensors, 0.0)
    assert torch.equal(run(dit), plain)
    merge_lora(dit, tensors, 0.0)
    assert torch.equal(run(dit), plain)


def test_merging_rounds_once(dit: DiT):
    """bf16 weights: the sum is made in fp32 and rounded once, as the nearest bf16 of the exact sum."""
    tensors = random_lora(linears(dit), rank=4, alpha=0.02)
    dit.to(torch.bfloat16)
    exact = {name: module.weight.double() + delta(tensors, name) for name, module in linears(dit).items()}
    merge_lora(dit, tensors)
    wrong = sum(int((module.weight != exact[name].bfloat16()).sum()) for name, module in linears(dit).items())
    total = sum(module.weight.numel() for module in linears(dit).values())
    assert wrong / total < 1e-4  # ties after the fp32 sum


def test_an_unmerged_lora_follows_the_activations(dit: DiT):
    tensors = random_lora(linears(dit), rank=4, dtype=torch.float16)
    expected = run(changed((tensors, 1.0)))
    apply_lora(dit.to(torch.bfloat16), tensors)
    output = run(dit)
    assert output.dtype == torch.bfloat16
    assert (output.float() - expected).norm() / expected.norm() < 0.05


def test_full_differences(dit: DiT):
    diff = torch.randn(48, 48, generator=torch.Generator().manual_seed(0)) * 0.1
    other = golden_dit()
    other.get_submodule(Q).weight.add_(diff, alpha=2)
    for put in (apply_lora, merge_lora):
        twin = golden_dit()
        assert put(twin, {f"{kohya(Q)}.diff": diff}, 2.0) == 1
        assert_close(run(twin), run(other), atol=1e-5, rtol=0)


@pytest.mark.parametrize("put", [apply_lora, merge_lora])
@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (random_lora({"double_blocks.9.img_attn_q": (48, 48)}), "1 of 1 changed layers are not in this model"),
        (random_lora({Q: (64, 64)}), r"changes a weight of \[64, 64\], but the model's is \[48, 48\]"),
        (random_lora({Q: (48, 48)}) | {"lora_te_x.alpha": torch.tensor(1.0)}, "1 of 4 tensors belong to no part"),
        ({f"{kohya(Q)}.alpha": torch.tensor(1.0)}, "has only alpha"),
    ],
)
def test_what_does_not_fit_changes_nothing(dit: DiT, put, tensors: dict[str, Tensor], words: str):
    plain = run(dit)
    with pytest.raises(UserError, match=words):
        put(dit, tensors)
    assert torch.equal(run(dit), plain)


def test_merging_into_weights_cast_to_fp8_is_refused(dit: DiT):
    linear = dit.get_submodule(Q)
    linear.weight = torch.nn.Parameter(linear.weight.to(torch.float8_e4m3fn), requires_grad=False)
    with pytest.raises(UserError, match=r"cannot be merged into a Linear layer in torch\.float8_e4m3fn"):
        merge_lora(dit, random_lora({Q: (48, 48)}))
