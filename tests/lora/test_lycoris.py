"""LyCORIS files: lycoris-lora makes them, and its own forward pass says what they mean."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hv15.errors import UserError
from hv15.lora import apply_lora, convert, merge_lora, merge_patch, read_lora, save_lora
from hv15.models import DiT
from hv15.models.weights.quantised import replace_linears
from tests.lora import comfyui
from tests.lora.lycoris_files import DEPENDENT, DORA, EXACT, FEW, UNUSABLE, USABLE, made, mostly_slow
from tests.lora.samples import linears, run
from tests.models.golden_dit import golden_dit, key_table

pytestmark = pytest.mark.numeric


@pytest.fixture
def dit() -> DiT:
    return golden_dit()


@pytest.fixture(scope="module")
def plain() -> Tensor:
    """The output without a LoRA."""
    return run(golden_dit())


@pytest.mark.parametrize(
    ("put", "strength", "kind"),
    [
        pytest.param(
            put,
            strength,
            kind,
            marks=[pytest.mark.slow] if strength < 1 and (put is merge_lora or kind not in FEW) else [],
        )
        for put in (apply_lora, merge_lora)
        for strength in (1.0, 0.8)
        for kind in USABLE
    ],
)
def test_effect_is_that_of_lycoris(dit: DiT, plain: Tensor, kind: str, strength: float, put):
    file, expected = made(kind, strength)
    assert (expected - plain).abs().max() > 1e-3
    assert put(dit, file, strength) == 28
    assert_close(run(dit), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", mostly_slow(DEPENDENT))
@pytest.mark.parametrize("put", [apply_lora, merge_lora])
def test_strength_zero_is_no_lora(dit: DiT, plain: Tensor, kind: str, put):
    put(dit, made(kind)[0], 0.0)
    assert torch.equal(run(dit), plain)


@pytest.mark.parametrize("kind", ["dora", "oft"])
def test_beside_quantised_weights(kind: str):
    """The same as on a model that holds the quantised weights as plain numbers."""
    file, _ = made(kind)
    quantised, plain = golden_dit(), golden_dit()
    weights = {name: layer.weight.clone() for name, layer in linears(plain).items()}
    replace_linears(quantised, "fp8", lambda name: name in weights)
    for name, weight in weights.items():
        layer = quantised.get_submodule(name)
        layer.quantise_(weight)
        layer.bias = plain.get_submodule(name).bias
        plain.get_submodule(name).weight.copy_(layer.dequantised())
    for model in (quantised, plain):
        apply_lora(model, file)
    assert_close(run(quantised), run(plain), atol=2e-5, rtol=1e-5)


def test_gradients_reach_the_input():
    """A LoRA may be trained on top of one that depends on the weights."""
    dit = golden_dit()
    apply_lora(dit, made("dora")[0])
    layer = dit.get_submodule("double_blocks.0.img_attn_q")
    x = torch.ones(1, 2, 48, requires_grad=True)
    layer(x).sum().backward()
    merged = golden_dit()
    merge_lora(merged, made("dora")[0])
    assert_close(x.grad[0, 0], merged.get_submodule("double_blocks.0.img_attn_q").weight.sum(0), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", EXACT)
def test_conversions_keep_the_effect(dit: DiT, kind: str):
    file, expected = made(kind)
    converted, _ = convert(file, "comfyui")
    keys = [
        key for key in key_table("keys_comfy_dit") if key.endswith(".weight") and key.startswith("double_blocks.0.")
    ]
    found, skipped = comfyui.changes({k: v for k, v in converted.items() if "double_blocks.0." in k}, keys)
    if not kind.startswith("lokr"):  # the restated rule knows no LoKr
        assert not skipped
        assert len(found) == 10
    assert apply_lora(dit, converted) == 28
    assert_close(run(dit), expected, atol=2e-5, rtol=1e-5)
    twin = golden_dit()
    merge_lora(twin, convert(converted, "kohya")[0])
    assert_close(run(twin), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "word"),
    [*((kind, "a DoRA") for kind in DORA), ("glora", "a GLoRA"), ("oft", "an OFT"), ("boft", "an OFT")],
)
def test_what_depends_on_the_base_is_not_converted(kind: str, word: str):
    with pytest.raises(UserError, match=f"LoRA: {word} .* cannot be converted to another layout"):
        convert(made(kind)[0], "comfyui")


@pytest.mark.parametrize(("kind", "word"), [("ia3", r"\(IA\)\^3"), ("tlora", "T-LoRA"), ("full", "biases")])
def test_what_cannot_be_used_is_refused_everywhere(dit: DiT, kind: str, word: str, tmp_path: Path):
    file, path = made(kind)[0], tmp_path / "lora.safetensors"
    assert kind in UNUSABLE
    for use in (
        lambda: apply_lora(dit, file),
        lambda: merge_lora(dit, file),
        lambda: merge_patch(file),
        lambda: convert(file, "comfyui"),
    ):
        with pytest.raises(UserError, match=rf"LoRA: the file holds .*{word} .*which hv15 cannot use") as error:
            use()
        assert error.value.hint
    save_lora(path, file, {})
    with pytest.raises(UserError, match=rf"lora\.safetensors: LoRA: the file holds .*{word}"):
        read_lora(path)


@pytest.mark.parametrize("kind", mostly_slow(USABLE))
def test_a_file_returns_from_disk(kind: str, tmp_path: Path):
    file, expected = made(kind)
    save_lora(tmp_path / "lora.safetensors", file, {})
    twin = golden_dit()
    apply_lora(twin, read_lora(tmp_path / "lora.safetensors")[0])
    assert_close(run(twin), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["dora", "loha, dora", "lokr, dora", "glora", "oft"])
def test_without_alpha_it_is_the_rank(kind: str):
    """An OFT needs no constraint either: lycoris-lora's own loader, which requires an alpha, is not used."""
    file, _ = made(kind)
    full = 0.0 if kind == "oft" else 4.0
    with_rank, without = golden_dit(), golden_dit()
    apply_lora(with_rank, {k: torch.tensor(full) if k.endswith(".alpha") else v for k, v in file.items()})
    apply_lora(without, {k: v for k, v in file.items() if not k.endswith(".alpha")})
    assert torch.equal(run(without), run(with_rank))


@pytest.mark.parametrize("kind", ["oft", "glora"])
def test_without_the_package_its_extra_is_named(dit: DiT, kind: str, monkeypatch: pytest.MonkeyPatch):
    file, _ = made(kind)
    for name in [name for name in sys.modules if name.partition(".")[0] == "lycoris"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lycoris", None)
    with pytest.raises(UserError, match="lycoris-lora") as error:
        apply_lora(dit, file)
    assert "hv15[lycoris]" in error.value.hint


@pytest.mark.parametrize("kind", ["dora", "oft"])
def test_modules_that_the_model_does_not_have(dit: DiT, kind: str):
    file, _ = made(kind)
    other = {key.replace("double_blocks_1", "double_blocks_7"): value for key, value in file.items()}
    with pytest.raises(UserError, match="14 of 28 changed layers are not in this model"):
        apply_lora(dit, other)
    with pytest.raises(UserError, match=r"img_attn_x is an? (DoRA|OFT) on a module that is not one linear layer"):
        apply_lora(dit, {key.replace("_img_attn_q", "_img_attn_x"): value for key, value in file.items()})


@pytest.mark.parametrize("kind", ["dora", "glora", "oft", "boft"])
def test_a_model_of_another_size(kind: str):
    small = {
        key: value[..., :24, :24] if value.ndim > 3 else value[:24]
        for key, value in made(kind)[0].items()
        if value.ndim
    }
    with pytest.raises(UserError, match=r"changes .* weight|shapes|magnitude"):
        apply_lora(golden_dit(), small)


def test_parts_that_do_not_belong_together():
    q = "lora_unet_double_blocks_0_img_attn_q"
    with pytest.raises(UserError, match="neither a GLoRA nor an OFT"):
        apply_lora(golden_dit(), {f"{q}.a1.weight": torch.ones(4, 4)})
    dora = {key: value for key, value in made("dora")[0].items() if f"{q[10:]}." in key}
    with pytest.raises(UserError, match=r"magnitude of .* is torch.float32 \[5, 1\]"):
        apply_lora(golden_dit(), dora | {next(key for key in dora if "dora" in key): torch.ones(5, 1)})
    columns = {key: value for key, value in made("dora by columns")[0].items() if f"{q[10:]}." in key}
    fused = {key.replace("attn_q", "attn_qkv"): value for key, value in columns.items()}
    with pytest.raises(UserError, match="attn_qkv is a DoRA on a module that is not one linear layer"):
        apply_lora(golden_dit(), fused)
