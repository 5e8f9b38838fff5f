"""The transformer on a quantised base: loaded, sampled from, trained on through LoRA hooks, merged into."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hv15.choices import WeightFormat
from hv15.errors import UserError
from hv15.lora import LoRANetwork, apply_lora, merge_lora, merge_patch
from hv15.models import DiT, load_dit, save_dit
from hv15.models.dit_files import is_block_linear
from hv15.models.weights.quantised import QuantisedLinear, quantise
from tests.lora.samples import delta, linears, random_lora, run
from tests.models.golden_dit import case, condition, golden_dit

pytestmark = pytest.mark.numeric

KINDS: tuple[WeightFormat, ...] = get_args(WeightFormat)
# Relative error of the velocity on the golden model, whose two blocks round as the real ones do.
BOUNDS = {"fp8": 0.05, "fp8_fast": 0.07, "int8": 0.02, "nf4": 0.20}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dit") / "dit.safetensors"
    save_dit(golden_dit(), path)
    return path


def twin(quantised: DiT) -> DiT:
    """The same model with plain layers that hold the dequantised numbers."""
    dit = golden_dit()
    for name, layer in quantised.named_modules():
        if isinstance(layer, QuantisedLinear):
            dit.get_submodule(name).weight.copy_(layer.dequantised())
    return dit


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def step(dit: DiT, network: LoRANetwork) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of one training step on a recorded case, and the LoRA's gradients."""
    network.zero_grad(set_to_none=True)
    recorded = case("i2v_byt5")
    target = torch.randn(recorded["out"].shape, generator=torch.Generator().manual_seed(3))
    arguments = recorded["in/hidden_states"], recorded["in/timestep"], condition(recorded, image=True)
    loss = (dit(*arguments) - target).square().mean()
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def lora_on(dit: DiT) -> LoRANetwork:
    """Rank 4 on every layer of the blocks, in the middle of a training: neither factor is zero."""
    network = LoRANetwork(dit, rank=4, alpha=4.0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_up" in name:
                parameter.normal_(std=0.02, generator=torch.Generator().manual_seed(len(name)))
    return network


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_blocks_are_rounded(file: Path, kind: WeightFormat):
    dit = load_dit(file, quantize=kind)
    names = {name for name, layer in dit.named_modules() if isinstance(layer, QuantisedLinear)}
    assert names == {name for name in linears(golden_dit()) if is_block_linear(name)}
    plain = golden_dit().state_dict()
    outside = {key: value for key, value in dit.state_dict().items() if key.rpartition(".")[0] not in names}
    assert outside
    assert all(torch.equal(value, plain[key]) for key, value in outside.items())
    one = dit.double_blocks[1].img_attn_k
    direct = quantise(plain["double_blocks.1.img_attn_k.weight"], plain["double_blocks.1.img_attn_k.bias"], kind)
    assert torch.equal(one.dequantised(), direct.dequantised())
    assert torch.equal(one.bias, direct.bias)


def test_errors_of_the_velocity(file: Path):
    plain = run(golden_dit())
    errors = {kind: error(run(load_dit(file, quantize=kind)), plain) for kind in KINDS}
    assert all(errors[kind] < BOUNDS[kind] for kind in KINDS), errors
    assert errors["int8"] < errors["fp8"] < errors["nf4"]
    assert errors["fp8"] < errors["fp8_fast"]


@pytest.mark.parametrize(
    ("kind", "checkpointing"),
    [
        ("fp8", True),
        ("int8", False),
        ("nf4", False),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in (("fp8", False), ("int8", True), ("nf4", True))),
    ],
)
def test_training_is_that_on_the_dequantised_weights(file: Path, kind: WeightFormat, checkpointing: bool):
    """Forward and back through the hooks of a LoRA; a model of plain layers is the reference."""
    dit = load_dit(file, quantize=kind)
    reference = twin(dit)
    dit.gradient_checkpointing = checkpointing
    loss, gradients = step(dit, lora_on(dit))
    wanted_loss, wanted = step(reference, lora_on(reference))
    assert_close(loss, wanted_loss, rtol=1e-6, atol=0)
    assert len(gradients) == len(wanted) == 2 * (28 - 3)  # the last block's text goes nowhere
    for name, gradient in wanted.items():
        assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-7, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("checkpointing", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_gradients_are_near_those_of_fp32(file: Path, checkpointing: bool):
    reference = golden_dit()
    loss, wanted = step(reference, lora_on(reference))
    joined = torch.cat([gradient.flatten() for gradient in wanted.values()])
    errors = {}
    for kind in KINDS:
        dit = load_dit(file, quantize=kind)
        dit.gradient_checkpointing = checkpointing
        found_loss, found = step(dit, lora_on(dit))
        errors[kind] = error(torch.cat([gradient.flatten() for gradient in found.values()]), joined)
        assert abs(found_loss / loss - 1) < BOUNDS[kind]
        assert errors[kind] < 2 * BOUNDS[kind]
    assert errors["int8"] < errors["fp8"] < errors["nf4"]


def learning(base: DiT) -> list[float]:
    """The losses of some steps of AdamW on one example."""
    network = lora_on(base)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    losses = []
    for _ in range(8):
        losses.append(float(step(base, network)[0]))
        optimizer.step()
    return losses


@pytest.mark.slow
def test_a_lora_learns_as_on_fp32(file: Path):
    """The loss falls as far, and the base is unchanged."""
    plain = learning(golden_dit())
    assert plain[-1] < 0.8 * plain[0]
    for kind in KINDS:
        dit = load_dit(file, quantize=kind)
        before = copy.deepcopy(dit.state_dict())
        losses = learning(dit)
        assert losses[0] - losses[-1] == pytest.approx(plain[0] - plain[-1], rel=0.2)
        assert all(torch.equal(v.view(torch.uint8), before[k].view(torch.uint8)) for k, v in dit.state_dict().items())


# -- LoRAs in the weights -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        *((torch.float32, kind) for kind in (*KINDS, None)),
        *((torch.bfloat16, kind) for kind in ("fp8", None)),
        *(pytest.param(torch.bfloat16, kind, marks=pytest.mark.slow) for kind in KINDS if kind != "fp8"),
    ],
)
def test_a_lora_merged_on_the_way_is_rounded_with_the_weight(file: Path, kind: WeightFormat | None, dtype: torch.dtype):
    """The sum is made in fp32 and rounded or quantised once, as if the file had held it."""
    tensors, other = (random_lora(linears(golden_dit()), rank=rank, alpha=0.5) for rank in (3, 5))
    patches = [merge_patch(tensors, 0.5), merge_patch(other, -0.25)]
    merged = load_dit(file, dtype=dtype, quantize=kind, merge=patches)
    for name in ("double_blocks.0.img_mod.linear", "double_blocks.1.txt_attn_v"):
        layer, plain = merged.get_submodule(name), golden_dit().get_submodule(name)
        wanted = (plain.weight.double() + 0.5 * delta(tensors, name) - 0.25 * delta(other, name)).float()
        if kind is None:
            assert layer.weight.dtype == dtype
            assert_close(layer.weight, wanted.to(dtype), rtol=2e-2 if dtype == torch.bfloat16 else 1e-6, atol=1e-7)
            continue
        found, expected = layer.dequantised(), quantise(wanted, plain.bias, kind).dequantised()
        far = (found - expected).abs() > 1e-5 * expected.abs()
        assert far.float().mean() < 0.01  # the last bit of a sum decides a rounding now and then
        assert error(found, wanted) < 0.15


def test_merged_is_near_applied(file: Path):
    """A LoRA on quantised weights is exact; merged into them, it is rounded with them, once or a second time."""
    tensors = random_lora(linears(golden_dit()), rank=4, alpha=4.0)
    exact = golden_dit()
    apply_lora(exact, tensors)
    wanted, plain = run(exact), run(golden_dit())
    assert error(plain, wanted) > 0.4
    for kind in KINDS:
        applied, again = load_dit(file, quantize=kind), load_dit(file, quantize=kind)
        apply_lora(applied, tensors)
        merge_lora(again, tensors)
        on_the_way = load_dit(file, quantize=kind, merge=[merge_patch(tensors)])
        assert error(run(applied), wanted) < BOUNDS[kind]
        assert error(run(on_the_way), wanted) < BOUNDS[kind]
        assert error(run(again), wanted) < 1.6 * BOUNDS[kind]


def test_a_lora_that_does_not_fit_is_named_before_a_weight_is_read(file: Path):
    wide = merge_patch(random_lora({"double_blocks.0.img_attn_q": (64, 64)}), name="wide.safetensors")
    deep = merge_patch(random_lora({"double_blocks.9.img_attn_q": (48, 48)}), name="deep.safetensors")
    with pytest.raises(
        UserError, match=r"wide\.safetensors: .* changes a weight of \[64, 64\], but the model's is \[48, 48"
    ):
        load_dit(file, merge=[wide])
    with pytest.raises(UserError, match=r"deep\.safetensors: 1 of 1 changed layers are not in this model"):
        load_dit(file, merge=[wide, deep][1:], device="meta")


def test_a_quantised_model_is_not_saved(file: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="quantised"):
        save_dit(load_dit(file, quantize="fp8"), tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())
