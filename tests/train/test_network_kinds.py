"""Every kind of network, through the trainer: it trains, resumes, samples, converts and merges."""

from __future__ import annotations

import json
import signal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from hv15.errors import UserError
from hv15.lora import convert_file, merge_lora, read_lora
from hv15.lora.publishing import check_formats
from hv15.lora.sizes import network_sizes
from hv15.lora.weighted import WeightedLoRA, apply_all
from hv15.models import Condition, DiT
from hv15.models.dit_files import is_block_linear
from hv15.models.weights.quantised import plain_weight, replace_linears
from hv15.records.metadata import CONFIG, DORA_NORM
from hv15.train.examples import Example
from hv15.train.networks import make_network
from tests.lora import comfyui
from tests.train.test_resume import at_step, send
from tests.train.world import CONFIG as SIZES
from tests.train.world import metrics, run, settings, tiny_dit, tiny_stores, untimed

pytestmark = pytest.mark.numeric

KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"network_type": "dora", "network_dropout": 0.1},
    "loha": {"network_type": "loha", "rank_dropout": 0.1},
    "lokr": {"network_type": "lokr", "lokr_factor": 4, "network_dim": 2, "module_dropout": 0.1},
    "lokr, full": {"network_type": "lokr", "lokr_full_matrix": True},
    "by pattern": {"network_dim_patterns": {"img_attn": 6, "attn": 2}, "network_alpha_patterns": {"mlp": 8}},
    "some layers": {"network_type": "dora", "layers": "attention", "layer_blocks": [1, 1]},
}
VARIANTS = ("lokr, full", "by pattern", "some layers")
"""Of kinds that are tested anyway; by default these are only trained."""
IMPOSSIBLE = {"dora": ("diffusers", "official"), "loha": ("diffusers", "official"), "lokr": ("official",)}
FP8 = {"quantize": "fp8", "gradient_checkpointing": True, "max_train_steps": 2, "state_every_n_steps": 1}


def of_kinds(*slow: str) -> list[Any]:
    return [pytest.param(kind, marks=pytest.mark.slow) if kind in slow else kind for kind in KINDS]


@pytest.fixture(autouse=True)
def no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hv15.train.metadata.git_commit", lambda: None)


plain_dit = cache(tiny_dit)
"""To read from."""


def fp8_dit() -> DiT:
    """The tiny transformer as `quantize: fp8` loads it."""
    plain, dit = plain_dit(), tiny_dit()
    for name in replace_linears(dit, "fp8", is_block_linear):
        layer, given = dit.get_submodule(name), plain.get_submodule(name)
        layer.quantise_(given.weight)
        layer.bias = torch.nn.Parameter(given.bias.clone(), requires_grad=False)
    return dit


@cache
def dequantised_weights() -> dict[str, Tensor]:
    dit, source = tiny_dit(), fp8_dit()
    for name, layer in dit.named_modules():
        if is_block_linear(name) and hasattr(layer, "weight") and layer.weight.ndim == 2:
            layer.weight.copy_(plain_weight(source.get_submodule(name)))
    return dit.state_dict()


def dequantised_dit() -> DiT:
    """A plain transformer with the same numbers."""
    dit = tiny_dit()
    dit.load_state_dict(dequantised_weights())
    return dit


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Kind -> the folder of a training on an fp8 base in batches of two, made once."""
    made: dict[str, Path] = {}
    root = tmp_path_factory.mktemp("kinds")
    data = tiny_stores(root / "cache")

    def train(kind: str) -> Path:
        if kind not in made:
            made[kind] = root / kind
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("hv15.train.metadata.git_commit", lambda: None)
                run(made[kind], settings("i2v", **FP8, **KINDS[kind]), data=data, dit=fp8_dit())
        return made[kind]

    train.data = data  # type: ignore[attr-defined]
    return train


@pytest.mark.parametrize("kind", KINDS)
def test_it_trains(trained: Any, kind: str) -> None:
    """Everything that the settings ask for is in the file, all of it has changed, and the file says what it is."""
    folder = trained(kind)
    file = folder / "lora.safetensors"
    sizes = network_sizes(SIZES, settings(**KINDS[kind]).train)
    tensors, info = load_file(file), safe_open(file, "pt").metadata()
    expected = {
        f"lora_unet_{layer.replace('.', '_')}.{part.removeprefix('base_')}": shape
        for layer in sizes.layers
        for part, shape in sizes.shapes(layer).items()
    }
    assert {key: tuple(tensor.shape) for key, tensor in tensors.items() if tensor.ndim} == expected
    assert {key: tensor.item() for key, tensor in tensors.items() if not tensor.ndim} == {
        f"lora_unet_{layer.replace('.', '_')}.alpha": alpha for layer, alpha in sizes.alphas.items()
    }
    assert info.get(DORA_NORM) == ("base" if sizes.kind.type == "dora" else None)
    assert '"network_type"' in info[CONFIG]
    algorithm = {"lora": None, "dora": "lora"}.get(sizes.kind.type, sizes.kind.type)
    assert json.loads(info.get("ss_network_args", "{}")).get("algo") == algorithm
    assert info["ss_network_dim"] == ("Dynamic" if kind == "by pattern" else str(KINDS[kind].get("network_dim", 4)))
    assert all(record["grad_norm"] > 0 for record in metrics(folder))


@pytest.mark.parametrize("kind", of_kinds("lora", "loha", *VARIANTS))
def test_it_resumes(trained: Any, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight, config = trained(kind), settings("i2v", **FP8, **KINDS[kind])
    with monkeypatch.context() as patch:
        patch.setattr(Example, "prediction", at_step(1, send(signal.SIGTERM)))
        with pytest.raises(SystemExit):
            run(tmp_path, config, data=trained.data, dit=fp8_dit())
    resumed = run(tmp_path, config, data=trained.data, dit=fp8_dit())
    assert resumed.read_bytes() == (straight / "lora.safetensors").read_bytes()
    assert untimed(metrics(tmp_path)) == untimed(metrics(straight))


@pytest.mark.parametrize("kind", of_kinds(*VARIANTS))
def test_it_samples(trained: Any, kind: str) -> None:
    """As the training computes with it, which starts from the file, on the fp8 base and on its plain numbers."""
    file = trained(kind) / "lora.safetensors"
    dits = fp8_dit(), dequantised_dit()
    for dit in dits:
        apply_all(dit, [WeightedLoRA(file)])
    started = fp8_dit()
    make_network(settings("i2v", **KINDS[kind], network_weights=str(file)), started).eval()
    expected = velocity(started, trained.data)
    for dit in dits:
        assert_close(velocity(dit, trained.data), expected, atol=1e-5, rtol=1e-5)
    assert (velocity(fp8_dit(), trained.data) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("kind", of_kinds(*VARIANTS))
@pytest.mark.parametrize("strength", [1.0, -0.5])
def test_it_merges(trained: Any, kind: str, strength: float) -> None:
    file = trained(kind) / "lora.safetensors"
    beside, merged = dequantised_dit(), dequantised_dit()
    apply_all(beside, [WeightedLoRA(file, strength)])
    merge_lora(merged, read_lora(file)[0], strength)
    assert_close(velocity(merged, trained.data), velocity(beside, trained.data), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", of_kinds(*VARIANTS))
def test_it_converts(trained: Any, kind: str, tmp_path: Path) -> None:
    """To each layout with the same effect, or it is refused beforehand with the same outcome."""
    file, sizes = trained(kind) / "lora.safetensors", network_sizes(SIZES, settings(**KINDS[kind]).train)
    expected = sampled(file, trained.data)
    for layout in ("comfyui", "diffusers", "official"):
        target = tmp_path / f"{layout}.safetensors"
        if layout in IMPOSSIBLE.get(sizes.kind.type, ()):
            with pytest.raises(UserError, match=f"convert.formats: {layout} cannot hold this {sizes.kind.type}: "):
                check_formats(sizes, [layout])
            with pytest.raises(UserError, match=r"can hold|cannot express"):
                convert_file(file, target, layout)
            continue
        check_formats(sizes, [layout])
        convert_file(file, target, layout)
        assert_close(sampled(target, trained.data), expected, atol=1e-5, rtol=1e-5)
    convert_file(tmp_path / "comfyui.safetensors", tmp_path / "back.safetensors", "kohya")
    assert_close(sampled(tmp_path / "back.safetensors", trained.data), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", of_kinds(*VARIANTS))
def test_comfyui_makes_of_the_file_what_was_trained(trained: Any, kind: str, tmp_path: Path) -> None:
    """By its own rule, on its own fused weights; nothing in the file is skipped."""
    file = trained(kind) / "lora.safetensors"
    convert_file(file, tmp_path / "comfyui.safetensors", "comfyui")
    merged = dequantised_dit()
    merge_lora(merged, read_lora(file)[0])
    found, skipped = comfyui.changed(load_file(tmp_path / "comfyui.safetensors"), fused(dequantised_dit()))
    assert not skipped
    for key, weight in fused(merged).items():
        assert_close(found[key].float(), weight, atol=1e-6, rtol=1e-5, msg=lambda text, key=key: f"{key}: {text}")


def fused(dit: DiT) -> dict[str, Tensor]:
    """The blocks' weights with q, k and v in one matrix, by ComfyUI's checkpoint names."""
    weights: dict[str, Tensor] = {}
    for name, layer in dit.named_modules():
        if is_block_linear(name) and isinstance(layer, torch.nn.Linear) and name[-2:] not in ("_k", "_v"):
            thirds = [name[:-1] + third for third in "qkv"] if name.endswith("_q") else [name]
            joined = torch.cat([dit.get_submodule(third).weight for third in thirds])
            weights[f"{name[:-1]}qkv.weight" if len(thirds) == 3 else f"{name}.weight"] = joined
    return weights


def sampled(file: Path, data: Any) -> Tensor:
    dit = dequantised_dit()
    apply_all(dit, [WeightedLoRA(file)])
    return velocity(dit, data)


def velocity(dit: DiT, data: Any) -> Tensor:
    """The output for the first clip of the tiny dataset at one noise level."""
    items, stores = data
    item = next(item for item in items if item.shape == (2, 6, 4))
    latents = stores.latents.read(item.clip)["latents"][None]
    text = stores.texts.read(item.caption)["text"][None]
    cond = Condition(text, [text.shape[1]], torch.zeros(1, 0, 10), [0])
    x = torch.cat([latents, torch.zeros(1, SIZES.latent_channels + 1, *latents.shape[2:])], 1)
    with torch.no_grad():
        return dit(x, torch.tensor([500.0]), cond)
