"""Each kind of trained change against lycoris-lora's and PEFT's own modules: values, gradients, sizes, start."""

from __future__ import annotations

import math

import pytest
import torch
from lycoris.functional.lokr import factorization as lycoris_factorization
from lycoris.modules.base import LycorisBaseModule
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from peft.tuners.lora import LoraConfig
from peft.tuners.lora.layer import Linear as PeftLinear
from torch import Tensor, nn
from torch.testing import assert_close

from hv15.lora import LoRANetwork
from hv15.lora.branches import Branch
from hv15.lora.factorization import lokr_matrices
from hv15.lora.kinds import BASE_MAGNITUDE
from hv15.lora.sizes import AdapterKind
from hv15.models.weights.quantised import QuantisedLinear, quantise
from tests.lora.samples import run
from tests.models.golden_dit import golden_dit

pytestmark = pytest.mark.numeric

RANK, ALPHA = 3, 6.0
KINDS = {
    "lora": AdapterKind(),
    "dora": AdapterKind("dora"),
    "loha": AdapterKind("loha"),
    "lokr": AdapterKind("lokr"),
    "lokr, factor 4": AdapterKind("lokr", 4),
    "lokr, full": AdapterKind("lokr", 4, full_matrix=True),
}
LYCORIS = {kind: KINDS[kind] for kind in KINDS if kind not in ("lora", "dora")}


def branch_on(
    kind: AdapterKind, rows: int = 40, columns: int = 24, *, quantised: bool = False
) -> tuple[nn.Linear | QuantisedLinear, Branch]:
    """A layer in a model of its own, and a branch with random parameters on it."""
    torch.manual_seed(0)
    layer: nn.Linear | QuantisedLinear = nn.Linear(columns, rows)
    if quantised:
        layer = quantise(layer.weight, layer.bias, "fp8")
    block = nn.ModuleDict({"img_attn_q": layer})
    network = LoRANetwork(nn.ModuleDict({"double_blocks": nn.ModuleList([block])}), rank=RANK, alpha=ALPHA, kind=kind)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return layer, network.branches[0]


def lycoris_twin(layer: nn.Linear, branch: Branch, kind: AdapterKind) -> LycorisBaseModule:
    """lycoris-lora's module with the same parameters on a copy of the layer."""
    own = nn.Linear(layer.in_features, layer.out_features)
    own.load_state_dict({"weight": layer.weight, "bias": layer.bias})
    if kind.type == "loha":
        twin = LohaModule("it", own, lora_dim=RANK, alpha=ALPHA)
    else:
        twin = LokrModule("it", own, lora_dim=RANK, alpha=ALPHA, factor=kind.factor, full_matrix=kind.full_matrix)
    twin.load_state_dict(
        {name: value for name, value in branch.state_dict().items() if name != "alpha" or not kind.full_matrix},
        strict=False,
    )
    return twin


def results(module: nn.Module, learned: list[nn.Parameter], x: Tensor) -> list[Tensor]:
    """Output, and the gradients of the input and of what learns."""
    leaf = x.clone().requires_grad_()
    output = module(leaf)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(7)) / 4
    return [output, *torch.autograd.grad(output, [leaf, *learned], weights)]


@pytest.mark.parametrize("shape", [(2, 5, 24), (5, 24)])
@pytest.mark.parametrize("kind", LYCORIS)
def test_values_and_gradients_are_those_of_lycoris(kind: str, shape: tuple[int, ...]):
    layer, branch = branch_on(LYCORIS[kind])
    twin, x = lycoris_twin(layer, branch, LYCORIS[kind]), torch.randn(shape)
    names = [name for name, _ in branch.named_parameters()]
    assert set(names) == {name for name, _ in twin.named_parameters()}
    expected = results(twin, [twin.get_parameter(name) for name in names], x)
    found = results(layer, [branch.get_parameter(name) for name in names], x)
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("quantised", [False, True])
def test_values_and_gradients_are_those_of_pefts_dora(quantised: bool):
    """PEFT divides by the norm of the changed weight, as a constant. With magnitudes in the ratio of the norms, both
    are the same function, and the gradients of the magnitudes have the inverse ratio."""
    layer, branch = branch_on(KINDS["dora"], quantised=quantised)
    plain = nn.Linear(24, 40).requires_grad_(False)
    plain.weight.copy_(layer.dequantised() if isinstance(layer, QuantisedLinear) else layer.weight)
    plain.bias.copy_(layer.bias)
    peft = PeftLinear(plain, "default", LoraConfig(use_dora=True, r=RANK, lora_alpha=int(ALPHA)), RANK, int(ALPHA))
    down, up, magnitude = (p.detach() for p in (branch.lora_down.weight, branch.lora_up.weight, _magnitude(branch)))
    with torch.no_grad():
        peft.lora_A["default"].weight.copy_(down)
        peft.lora_B["default"].weight.copy_(up)
        base = plain.weight.norm(dim=1)
        ratio = (plain.weight + up @ down * ALPHA / RANK).norm(dim=1) / base
        peft.lora_magnitude_vector["default"].weight.copy_(magnitude[:, 0] * ratio)
    x = torch.randn(2, 5, 24)
    learned = [
        peft.lora_A["default"].weight,
        peft.lora_B["default"].weight,
        peft.lora_magnitude_vector["default"].weight,
    ]
    expected = results(peft, learned, x)
    found = results(layer, [branch.lora_down.weight, branch.lora_up.weight, _magnitude(branch)], x)
    assert (ratio - 1).abs().max() > 0.1
    expected[-1] = (expected[-1] * ratio)[:, None]
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_values_are_those_of_lycoris_dora():
    """Which divides by the norm of the changed weight, too."""
    layer, branch = branch_on(KINDS["dora"])
    own = nn.Linear(24, 40)
    own.load_state_dict({"weight": layer.weight, "bias": layer.bias})
    twin = LoConModule("it", own, lora_dim=RANK, alpha=ALPHA, weight_decompose=True)
    changed = own.weight + branch.lora_up.weight @ branch.lora_down.weight * ALPHA / RANK
    with torch.no_grad():
        twin.lora_down.weight.copy_(branch.lora_down.weight)
        twin.lora_up.weight.copy_(branch.lora_up.weight)
        ratio = changed.norm(dim=1, keepdim=True) / own.weight.norm(dim=1, keepdim=True)
        twin.dora_scale.copy_(_magnitude(branch) * ratio)
        x = torch.randn(2, 5, 24)
        assert_close(layer(x), twin(x), atol=1e-6, rtol=1e-5)


def _magnitude(branch: Branch) -> nn.Parameter:
    return branch.get_parameter(BASE_MAGNITUDE)


@pytest.mark.parametrize("kind", LYCORIS)
def test_a_start_is_drawn_as_lycoris_draws_it(kind: str):
    """The same matrices are zero, the others have the same distribution."""
    sizes, rank = (192, 640), 24
    block = nn.ModuleDict({"img_attn_q": nn.Linear(*sizes)})
    model = nn.ModuleDict({"double_blocks": nn.ModuleList([block])})
    found = LoRANetwork(model, rank=rank, alpha=rank, kind=LYCORIS[kind], seed=3).branches[0]
    own, given = nn.Linear(*sizes), LYCORIS[kind]
    if given.type == "loha":
        twin: LycorisBaseModule = LohaModule("it", own, lora_dim=rank, alpha=rank)
    else:
        twin = LokrModule("it", own, lora_dim=rank, alpha=rank, factor=given.factor, full_matrix=given.full_matrix)
    parameters = {name: p for name, p in twin.named_parameters() if not name.startswith("org")}
    assert {name: p.shape for name, p in found.named_parameters()} == {name: p.shape for name, p in parameters.items()}
    for name, parameter in found.named_parameters():
        expected = parameters[name]
        assert bool(parameter.any()) == bool(expected.any()), name
        if expected.any():
            assert parameter.std().item() == pytest.approx(expected.std().item(), rel=0.35), name
            assert parameter.abs().max().item() < 1.5 * expected.abs().max().item(), name
    assert [p.any().item() for p in found.ups] == [False]
    assert all(p.any() for p in found.downs)
    assert len(found.ups) + len(found.downs) == len(parameters)


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_one_changes_nothing_and_depends_on_seed_and_name_alone(kind: str):
    dit = golden_dit()
    plain = run(dit)
    network = LoRANetwork(dit, rank=2, alpha=3, kind=KINDS[kind], seed=5)
    assert torch.equal(run(dit), plain)
    torch.rand(3)
    part = LoRANetwork(golden_dit(), rank=2, alpha=3, kind=KINDS[kind], seed=5, include=["txt_mlp"]).state_dict()
    assert all(torch.equal(network.state_dict()[key], tensor) for key, tensor in part.items())
    other = LoRANetwork(golden_dit(), rank=2, alpha=3, kind=KINDS[kind], seed=6).state_dict()
    assert any(not torch.equal(network.state_dict()[key], tensor) for key, tensor in other.items())


def test_sides_are_divided_as_lycoris_does():
    for rows in (1, 7, 12, 48, 192, 250, 2048, 8192, 12288):
        for factor in (-1, 2, 3, 4, 8, 16, 24, 100, 4096):
            w1, w2 = lokr_matrices(rows, 64, factor)
            assert ((w1[0], w2[0]), (w1[1], w2[1])) == (
                lycoris_factorization(rows, factor),
                lycoris_factorization(64, factor),
            )


@pytest.mark.parametrize(
    ("kind", "dropout"),
    [
        ("dora", "dropout"),
        pytest.param("dora", "rank_dropout", marks=pytest.mark.slow),
        ("loha", "rank_dropout"),
        pytest.param("lokr, factor 4", "module_dropout", marks=pytest.mark.slow),
    ],
)
def test_dropout_recomputes_the_same_masks(kind: str, dropout: str):
    """With gradient checkpointing in windows, and without: the same gradients; another step draws others."""
    found: list[dict[str, Tensor]] = []
    for checkpointing, most_tokens, seed in ((False, 10**6, 1), (True, 16, 1), (False, 10**6, 2)):
        dit = golden_dit()
        network = LoRANetwork(dit, rank=2, alpha=2, kind=KINDS[kind], seed=5, **{dropout: 0.4})
        filled(network)
        network.set_step_seed(seed)
        dit.gradient_checkpointing, dit.most_tokens = checkpointing, most_tokens
        run(dit).square().mean().backward()
        found.append({name: p.grad for name, p in network.named_parameters() if p.grad is not None})
    plain, windows, other = found
    assert windows.keys() == plain.keys()
    for name, gradient in plain.items():
        assert_close(windows[name], gradient, atol=1e-7, rtol=2e-4, msg=lambda text, name=name: f"{name}: {text}")
    assert any(name not in other or not torch.equal(other[name], gradient) for name, gradient in plain.items())


def filled(network: LoRANetwork) -> None:
    draw = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.1)


def test_rank_dropout_keeps_the_mean():
    layer, branch = branch_on(KINDS["loha"])
    branch.shared.rank_dropout = 0.4
    x, outputs = torch.randn(1, 4, 24), []
    for step in range(400):
        branch.shared.step_seed = step
        outputs.append(layer(x).detach())
    spread = torch.stack(outputs).std(0) / math.sqrt(len(outputs))
    branch.eval()
    assert (((torch.stack(outputs).mean(0) - layer(x)) / spread).abs() < 5).all()


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_activations_meet_fp32_parameters(kind: str):
    dit = golden_dit()
    network = LoRANetwork(dit, rank=2, alpha=3, kind=KINDS[kind])
    filled(network)
    expected = run(dit)
    output = run(dit.to(torch.bfloat16))
    output.float().square().mean().backward()
    assert {p.grad.dtype for p in network.parameters() if p.grad is not None} == {torch.float32}
    assert (output.float() - expected).norm() / expected.norm() < 0.05


def test_a_magnitude_keeps_its_digits_in_bfloat16():
    """A factor near 1 has only two digits there: 1.01 would be 1.0078."""
    torch.manual_seed(0)
    block = nn.ModuleDict({"img_attn_q": nn.Linear(24, 40, bias=False).to(torch.bfloat16)})
    network = LoRANetwork(nn.ModuleDict({"double_blocks": nn.ModuleList([block])}), rank=2, alpha=2, kind=KINDS["dora"])
    layer, x = block["img_attn_q"], torch.randn(4096, 24).to(torch.bfloat16)
    before = layer(x).float()
    with torch.no_grad():
        _magnitude(network.branches[0]).mul_(1.01)
    grown = (layer(x).float() * before).sum() / before.square().sum()
    assert grown.item() == pytest.approx(1.01, abs=5e-4)
