"""LyCORIS files: lycoris-lora makes them and says what they mean."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lycoris import create_lycoris
from torch import Tensor, nn
from torch.testing import assert_close

from hv15.errors import UserError
from hv15.lora import apply_lora, convert, merge_lora, read_lora, save_lora
from hv15.models import DiT
from tests.lora import comfyui
from tests.lora.samples import run
from tests.models.golden_dit import golden_dit, key_table

KINDS: dict[str, dict[str, Any]] = {
    "loha": {"algo": "loha"},
    "lokr": {"algo": "lokr", "factor": 4},
    "lokr, both factored": {"algo": "lokr", "factor": 8, "decompose_both": True, "linear_dim": 2},
    "lokr, full": {"algo": "lokr", "factor": 4, "full_matrix": True},
    "locon": {"algo": "lora"},
    "dora": {"algo": "lora", "dora_wd": True},
    "oft": {"algo": "diag-oft"},
}
EXACT = ["loha", "lokr", "lokr, both factored", "lokr, full", "locon"]


@pytest.fixture
def dit() -> DiT:
    return golden_dit()


def made(kind: str, strength: float = 1.0) -> tuple[dict[str, Tensor], Tensor]:
    """A file that lycoris-lora wrote for the blocks, and the model's output under its own network."""
    dit = golden_dit()
    torch.manual_seed(4)
    blocks = nn.ModuleDict({"double_blocks": dit.double_blocks})
    network = create_lycoris(blocks, strength, **({"linear_dim": 4, "linear_alpha": 2.0} | KINDS[kind]))
    network.apply_to()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        expected = run(dit)
    return {key: value.detach().clone() for key, value in network.state_dict().items()}, expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("put", [apply_lora, merge_lora])
def test_effect_is_that_of_lycoris(dit: DiT, kind: str, put):
    file, expected = made(kind, 0.8)
    assert (expected - run(golden_dit())).abs().max() > 1e-3
    assert put(dit, file, 0.8) == 28
    assert_close(run(dit), expected, atol=2e-5, rtol=1e-5)


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


def test_what_only_lycoris_knows_is_not_converted():
    for kind, words in (("dora", "DoRA"), ("oft", "only lycoris-lora knows")):
        with pytest.raises(UserError, match=words):
            convert(made(kind)[0], "comfyui")


def test_a_file_returns_from_disk(dit: DiT, tmp_path: Path):
    for kind in KINDS:
        file, expected = made(kind)
        save_lora(tmp_path / "lora.safetensors", file, {})
        twin = golden_dit()
        apply_lora(twin, read_lora(tmp_path / "lora.safetensors")[0])
        assert_close(run(twin), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["loha", "dora"])
def test_without_the_package_its_extra_is_named(dit: DiT, kind: str, monkeypatch: pytest.MonkeyPatch):
    file, _ = made(kind)
    for name in [name for name in sys.modules if name.partition(".")[0] == "lycoris"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lycoris", None)
    with pytest.raises(UserError, match="lycoris-lora") as error:
        apply_lora(dit, file)
    assert "hv15[lycoris]" in error.value.hint


def test_modules_that_the_model_does_not_have(dit: DiT):
    file, _ = made("dora")
    other = {key.replace("double_blocks_1", "double_blocks_7"): value for key, value in file.items()}
    with pytest.raises(UserError, match="takes 14 of 28 modules"):
        apply_lora(dit, other)
    with pytest.raises(UserError, match="not named as expected"):
        apply_lora(dit, {key.replace("_img_attn_q", "_img_attn_x"): value for key, value in file.items()})
