"""Training a LoRA: where it sits, how it starts, what its dropout draws, and that the base never changes."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from hv15.errors import UserError
from hv15.lora import LoRANetwork
from hv15.lora.dropout import Dropouts
from hv15.models import DiT
from hv15.models.dit_config import DiTConfig
from tests.lora.samples import delta, linears, run
from tests.models.golden_dit import golden_dit

pytestmark = pytest.mark.numeric


@pytest.fixture
def dit() -> DiT:
    return golden_dit()


def trained(network: LoRANetwork) -> LoRANetwork:
    """With an up that is not zero."""
    draw = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_up" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.2)
    return network


def gradients(network: LoRANetwork) -> dict[str, Tensor]:
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.slow
def test_the_real_model_has_756_modules_and_as_many_parameters_as_its_sizes_say():
    with torch.device("meta"):
        dit = DiT(DiTConfig())
    network = LoRANetwork(dit, rank=32, alpha=32)
    width = 2048
    per_stream = (width + 6 * width) + 4 * 2 * width + 2 * (width + 4 * width)
    assert len(network.module_names) == 756
    assert network.num_parameters == 54 * 2 * 32 * per_stream
    assert not any(p.requires_grad for p in dit.parameters())


def test_a_new_lora_changes_nothing(dit: DiT):
    plain = run(dit)
    LoRANetwork(dit, rank=4, alpha=4)
    assert torch.equal(run(dit), plain)


def test_output_is_that_of_the_merged_weights(dit: DiT):
    network = trained(LoRANetwork(dit, rank=4, alpha=6))
    expected = golden_dit()
    for name, module in linears(expected).items():
        module.weight += delta(network.state_dict(), name).float()
    assert_close(run(dit), run(expected), atol=1e-5, rtol=0)


def test_detach_leaves_no_trace(dit: DiT):
    plain, names = run(dit), list(dit.state_dict())
    network = trained(LoRANetwork(dit, rank=4, alpha=4))
    assert list(dit.state_dict()) == names
    assert not torch.allclose(run(dit), plain, atol=1e-3)
    network.detach()
    assert torch.equal(run(dit), plain)


def test_start_depends_on_the_seed_and_the_name_alone(dit: DiT):
    whole = LoRANetwork(dit, rank=4, alpha=4, seed=5).state_dict()
    torch.rand(3)  # the global stream plays no part
    part = LoRANetwork(golden_dit(), rank=4, alpha=4, seed=5, include=["txt_mlp"]).state_dict()
    assert len(part) == 2 * 2 * 3
    assert all(torch.equal(whole[key], tensor) for key, tensor in part.items())
    other = LoRANetwork(golden_dit(), rank=4, alpha=4, seed=6).state_dict()
    downs = [key for key in whole if "lora_down" in key]
    assert all(not torch.equal(whole[key], other[key]) for key in downs)
    assert len({whole[key].sum().item() for key in downs}) == len(downs)
    wide = torch.cat([whole[key].flatten() for key in downs if whole[key].shape[1] == 48])
    assert wide.abs().max() <= 1 / math.sqrt(48)  # kaiming uniform, a = sqrt(5)
    assert wide.std().item() == pytest.approx(1 / math.sqrt(3 * 48), rel=0.05)


def test_every_module_learns(dit: DiT):
    """All but the last block's text outputs, which nothing reads, get a gradient; the base gets none."""
    network = trained(LoRANetwork(dit, rank=4, alpha=4))
    run(dit).square().mean().backward()
    silent = {name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()}
    last = {f"lora_unet_double_blocks_1_txt_{part}" for part in ("attn_q", "attn_proj", "mlp_fc1", "mlp_fc2")}
    assert {name.split(".")[0] for name in silent} == last
    assert all(p.grad is None for p in dit.parameters())


def test_gradients_are_those_of_the_formula(dit: DiT):
    """Adding in place must not disturb autograd: compare with weights that are differentiated as a whole."""
    network = trained(LoRANetwork(dit, rank=4, alpha=6))
    run(dit).square().mean().backward()
    twin = golden_dit()
    leaves = {name: p.detach().clone().requires_grad_() for name, p in network.named_parameters()}
    weights = {
        f"{name}.weight": module.weight
        + leaves[f"lora_unet_{name.replace('.', '_')}.lora_up.weight"]
        @ leaves[f"lora_unet_{name.replace('.', '_')}.lora_down.weight"]
        * 1.5
        for name, module in linears(twin).items()
    }

    class Output(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dit = twin

        def forward(self) -> Tensor:
            return run(self.dit)

    output = torch.func.functional_call(Output(), {f"dit.{key}": value for key, value in weights.items()})
    output.square().mean().backward()
    for name, gradient in gradients(network).items():
        assert_close(gradient, leaves[name].grad, atol=1e-6, rtol=1e-4, msg=name)


DROPOUTS = [{"dropout": 0.4}, {"rank_dropout": 0.4}, {"module_dropout": 0.4}]


@pytest.mark.parametrize("settings", DROPOUTS, ids=lambda settings: next(iter(settings)))
def test_dropout_is_a_function_of_the_step_seed(dit: DiT, settings: dict[str, float]):
    network = trained(LoRANetwork(dit, rank=4, alpha=4, **settings))
    with pytest.raises(RuntimeError, match="set_step_seed"):
        run(dit)
    network.set_step_seed(1)
    first = run(dit)
    torch.rand(3)
    assert torch.equal(run(dit), first)
    network.set_step_seed(2)
    assert not torch.equal(run(dit), first)
    network.eval()
    whole = run(dit)
    assert not torch.equal(whole, first)
    network.detach()
    without = trained(LoRANetwork(dit, rank=4, alpha=4))
    assert torch.equal(run(dit), whole)
    without.detach()


@pytest.mark.parametrize("settings", DROPOUTS, ids=lambda settings: next(iter(settings)))
def test_checkpointing_recomputes_the_same_masks(dit: DiT, settings: dict[str, float]):
    network = trained(LoRANetwork(dit, rank=4, alpha=4, **settings))
    network.set_step_seed(3)
    found = []
    for dit.gradient_checkpointing in (False, True):
        network.zero_grad()
        run(dit).square().mean().backward()
        found.append(gradients(network))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[1][name], gradient) for name, gradient in found[0].items())


def test_dropout_keeps_the_mean():
    layer = nn.ModuleDict(
        {"double_blocks": nn.ModuleList([nn.ModuleDict({"img_attn_q": nn.Linear(8, 8, bias=False)})])}
    )
    base = layer["double_blocks"][0]["img_attn_q"]
    x = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(0))
    for settings in DROPOUTS[:2]:
        network = trained(LoRANetwork(layer, rank=4, alpha=4, **settings))
        outputs = []
        for step in range(2000):
            network.set_step_seed(step)
            outputs.append(base(x).detach())
        network.eval()
        spread = torch.stack(outputs).std(0) / math.sqrt(len(outputs))
        assert (((torch.stack(outputs).mean(0) - base(x)) / spread).abs() < 5).all()
        network.detach()


def test_rank_dropout_is_drawn_for_each_sample():
    drops = Dropouts(0.0, 0.5, 0.0)
    drops.step_seed = 0
    masks = drops.mask(torch.ones(8, 3, 16), "name")
    assert torch.equal(masks[:, :1].expand_as(masks), masks)  # the same for all tokens
    assert len({tuple(mask.tolist()) for mask in masks[:, 0]}) > 1
    assert set(masks.unique().tolist()) == {0.0, 2.0}


def test_bfloat16_activations_meet_fp32_parameters(dit: DiT):
    network = trained(LoRANetwork(dit, rank=4, alpha=4))
    expected = run(dit)
    output = run(dit.to(torch.bfloat16))
    assert output.dtype == torch.bfloat16
    output.float().square().mean().backward()
    assert {p.dtype for p in network.parameters()} == {p.grad.dtype for p in network.parameters() if p.grad is not None}
    assert (output.float() - expected).norm() / expected.norm() < 0.05


def test_parameter_groups(dit: DiT):
    network = LoRANetwork(dit, rank=4, alpha=4)
    plain = network.parameter_groups(1e-4)
    assert [(group["name"], group["lr"]) for group in plain] == [("down", 1e-4), ("up", 1e-4)]
    plus = network.parameter_groups(1e-4, loraplus_ratio=16)
    assert [group["lr"] for group in plus] == [1e-4, 1.6e-3]
    assert sum(len(group["params"]) for group in plus) == len(list(network.parameters())) == 2 * 28


def test_layers_with_rates_of_their_own_are_groups_of_their_own(dit: DiT):
    network = LoRANetwork(dit, rank=4, alpha=4)
    groups = network.parameter_groups(1e-4, loraplus_ratio=4, layer_rates={r"\.0\.img_attn": 5e-5, "img_": 2e-5})
    assert [(group["name"], group["lr"]) for group in groups] == [
        ("down", 1e-4),
        ("up", 4e-4),
        ("down at 2e-05", 2e-5),
        ("up at 2e-05", 8e-5),
        ("down at 5e-05", 5e-5),
        ("up at 5e-05", 2e-4),
    ]
    rate_of = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    for name, parameter in network.named_parameters():
        block, part = name.removeprefix("lora_unet_double_blocks_").split("_", 1)
        rate = 1e-4 if part.startswith("txt") else 5e-5 if block == "0" and part.startswith("img_attn") else 2e-5
        assert rate_of.pop(id(parameter)) == pytest.approx(rate * 4 if "lora_up" in name else rate)
    assert not rate_of


def test_state_returns_through_a_file_and_refuses_what_does_not_fit(dit: DiT):
    state = trained(LoRANetwork(dit, rank=4, alpha=6)).state_dict()
    key = "lora_unet_double_blocks_0_img_attn_q"
    assert state[f"{key}.lora_down.weight"].shape == (4, 48)
    assert state[f"{key}.lora_up.weight"].shape == (48, 4)
    assert state[f"{key}.alpha"].item() == 6.0
    other = LoRANetwork(golden_dit(), rank=4, alpha=6, seed=1)
    other.load_state_dict(state)
    assert all(torch.equal(other.state_dict()[name], tensor) for name, tensor in state.items())
    for spoilt, words in (
        ({k: v for k, v in state.items() if not k.startswith(key)}, "3 tensors missing"),
        (state | {"lora_unet_x.alpha": torch.tensor(1.0)}, "1 tensors unexpected"),
        (state | {f"{key}.lora_down.weight": torch.zeros(8, 48)}, r"set train\.network_dim \(4\) to the file's rank"),
        (state | {f"{key}.alpha": torch.tensor(4.0)}, "network_alpha is 6"),
    ):
        with pytest.raises(UserError, match=words):
            other.load_state_dict(spoilt)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rank": 0}, "network_dim"),
        ({"alpha": 0.0}, "network_alpha"),
        ({"dropout": 1.0}, "network_dropout"),
        ({"rank_dropout": -0.1}, "rank_dropout"),
        ({"module_dropout": 2.0}, "module_dropout"),
        ({"include": ["img_atn"]}, "matches none"),
    ],
)
def test_settings_out_of_range(dit: DiT, settings: dict[str, object], words: str):
    with pytest.raises(UserError, match=words):
        LoRANetwork(dit, **({"rank": 4, "alpha": 4.0} | settings))


def test_a_layer_of_another_kind_can_carry_it():
    """Quantised linears are not nn.Linear: only their sizes, the device of a weight and a call are used."""

    class Quantised(nn.Module):
        in_features, out_features = 8, 6

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", torch.ones(6, 8, dtype=torch.int8))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight.to(x.dtype).t() * 0.1

    block = nn.ModuleDict({"img_attn_q": Quantised()})
    model = nn.ModuleDict({"double_blocks": nn.ModuleList([block])})
    network = trained(LoRANetwork(model, rank=2, alpha=2))
    x = torch.ones(2, 3, 8)
    expected = torch.full((2, 3, 6), 0.8) + x @ delta(network.state_dict(), "double_blocks.0.img_attn_q").float().t()
    assert_close(block["img_attn_q"](x), expected)


def test_import_needs_no_torch():
    import subprocess

    code = "import sys, hv15.lora, hv15.lora.names; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
