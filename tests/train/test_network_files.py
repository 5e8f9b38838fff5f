"""LoRA files that a training uses: beneath the one that is trained, and as the one to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from hv15.errors import UserError
from hv15.lora import LoRANetwork, convert, merge_lora, save_lora
from hv15.lora.sizes import AdapterKind
from hv15.lora.weighted import WeightedLoRA, apply_all
from hv15.records.metadata import DORA_NORM
from hv15.train.networks import make_network
from tests.lora.samples import linears
from tests.train.test_network_kinds import dequantised_dit, fp8_dit, velocity
from tests.train.world import run, settings, tiny_dit, tiny_stores

SHORT = {"max_train_steps": 2, "include_patterns": ["img_attn", "txt_mlp"]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny_stores(tmp_path_factory.mktemp("data"))


def random_network(kind: AdapterKind, **options: Any) -> LoRANetwork:
    network = LoRANetwork(tiny_dit(), kind=kind, **{"rank": 2, "alpha": 3.0, **options})
    draw = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.1)
    return network


@pytest.mark.parametrize(
    "kind",
    [AdapterKind(), *(pytest.param(AdapterKind(kind), marks=pytest.mark.slow) for kind in ("dora", "lokr"))],
    ids=lambda kind: kind.type,
)
def test_loras_beneath_act_as_if_they_were_merged_exactly(data: Any, tmp_path: Path, kind: AdapterKind) -> None:
    """Beside fp8 weights, against a training on the same numbers with the LoRAs merged in fp32."""
    base = random_network(kind)
    save_lora(tmp_path / "base.safetensors", base.state_dict(), {})
    path = str(tmp_path / "base.safetensors")
    quantised, plain = fp8_dit(), dequantised_dit()
    before = velocity(quantised, data)
    beside = settings(**SHORT, quantize="fp8", base_weights=[{"path": path, "multiplier": 0.5}])
    found = load_file(run(tmp_path / "beside", beside, data=data, dit=quantised))
    merge_lora(plain, base.state_dict(), 0.5)
    expected = load_file(run(tmp_path / "merged", settings(**SHORT), data=data, dit=plain))
    without = load_file(run(tmp_path / "without", settings(**SHORT), data=data, dit=dequantised_dit()))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert_close(found[name], tensor, atol=2e-5, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}")
    assert any((without[name] - tensor).abs().max() > 1e-3 for name, tensor in expected.items())
    assert torch.equal(velocity(quantised, data), before)  # the model is as before


def test_two_loras_beneath_and_a_dora_above(data: Any, tmp_path: Path) -> None:
    """A DoRA scales the weight alone, not what other LoRAs add to it: so does sampling with the same files."""
    save_lora(tmp_path / "one.safetensors", random_network(AdapterKind()).state_dict(), {})
    save_lora(tmp_path / "two.safetensors", random_network(AdapterKind("dora")).state_dict(), {})
    base = [{"path": str(tmp_path / f"{name}.safetensors")} for name in ("one", "two")]
    dora = random_network(AdapterKind("dora"), include=SHORT["include_patterns"], rank=4, alpha=4.0)
    save_lora(tmp_path / "start.safetensors", dora.state_dict(), {})
    start = str(tmp_path / "start.safetensors")
    config = settings(**SHORT, network_type="dora", network_weights=start, base_weights=base)
    training = tiny_dit()
    network = make_network(config, training)
    sampling = tiny_dit()
    apply_all(sampling, [WeightedLoRA(tmp_path / f"{name}.safetensors") for name in ("one", "start", "two")])
    found = velocity(training, data)
    assert_close(found, velocity(sampling, data), atol=1e-5, rtol=1e-5)
    with network.detached(training):  # for a preview
        assert torch.equal(velocity(training, data), velocity(tiny_dit(), data))
    assert torch.equal(velocity(training, data), found)


def test_a_missing_or_unfit_base_lora_is_named(data: Any, tmp_path: Path) -> None:
    config = settings(**SHORT, base_weights=[{"path": str(tmp_path / "gone.safetensors")}])
    with pytest.raises(UserError, match=r"gone\.safetensors: no such file"):
        run(tmp_path / "a", config, data=data)
    network = random_network(AdapterKind(), include=["blocks.1.txt_mlp"])
    state = {key.replace("blocks_1", "blocks_9"): tensor for key, tensor in network.state_dict().items()}
    save_lora(tmp_path / "gone.safetensors", state, {})
    with pytest.raises(UserError, match=r"gone\.safetensors: .*2 of 2 changed layers are not in this model"):
        run(tmp_path / "a", config, data=data)


@pytest.mark.parametrize("kind", [AdapterKind(), AdapterKind("dora")], ids=lambda kind: kind.type)
def test_a_file_to_start_from_is_trained_on_beside_fp8_weights(data: Any, tmp_path: Path, kind: AdapterKind) -> None:
    """With its ranks and layers, as on a plain model of the same numbers."""
    names = [name for name in linears(tiny_dit()) if "img_mlp" in name or "1.txt_attn_k" in name]
    ranks = {name: 1 + index for index, name in enumerate(names)}
    start = random_network(kind, rank=ranks, alpha={name: float(rank) for name, rank in ranks.items()}).state_dict()
    marks = {DORA_NORM: "base"} if kind.type == "dora" else {}
    save_lora(tmp_path / "start.safetensors", start, marks)
    options = {"network_weights": str(tmp_path / "start.safetensors"), "dim_from_weights": True, "max_train_steps": 2}
    options["network_type"] = kind.type
    beside = load_file(run(tmp_path / "fp8", settings(**options, quantize="fp8"), data=data, dit=fp8_dit()))
    plain = load_file(run(tmp_path / "plain", settings(**options), data=data, dit=dequantised_dit()))
    assert beside.keys() == plain.keys()
    assert {name for name in beside if ".lora_" in name} == {name for name in start if ".lora_" in name}
    for name, tensor in plain.items():
        assert_close(beside[name], tensor, atol=2e-5, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}")
        assert tensor.ndim == 0 or name not in start or not torch.equal(tensor, start[name]), name


@pytest.mark.parametrize("layout", ["kohya", "official"])
def test_ranks_come_from_the_file_to_start_from(data: Any, tmp_path: Path, layout: Any) -> None:
    names = [name for name in linears(tiny_dit()) if "img_mlp" in name or "1.txt_attn_k" in name]
    ranks = {name: 1 + index for index, name in enumerate(names)}
    alphas = {name: float(rank) for name, rank in ranks.items()}
    start = random_network(AdapterKind(), rank=ranks, alpha=alphas).state_dict()
    save_lora(tmp_path / "start.safetensors", *convert(start, layout))
    config = settings(
        max_train_steps=1,
        learning_rate=1e-12,
        network_weights=str(tmp_path / "start.safetensors"),
        dim_from_weights=True,
    )
    found = load_file(run(tmp_path / "run", config, data=data))
    assert found.keys() == start.keys()
    for name, tensor in start.items():
        assert_close(found[name], tensor, atol=1e-6, rtol=1e-5)
