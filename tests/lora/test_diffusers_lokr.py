"""LoKr to and from diffusers, whose loader builds them anew from sizes: its own transformer says what a file means."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from lycoris import create_lycoris
from torch import Tensor, nn
from torch.testing import assert_close

from hv15.errors import UserError
from hv15.lora import apply_lora, convert, convert_file, read_lora, save_lora
from hv15.lora.factorization import factorization
from hv15.lora.peft import ADAPTER_METADATA
from hv15.models import DiT
from tests.lora.diffusers_model import ours, theirs
from tests.lora.samples import linears, random_lora
from tests.models.copies import copied

pytestmark = pytest.mark.numeric

KINDS = {
    "w2 factored": {"factor": 4},
    "near-square": {"factor": -1},
    "no divisor": {"factor": 5},  # 48, 192 and 288 have none: 4 x 12, 4 x 48, 4 x 72
    "both factored": {"factor": 6, "decompose_both": True, "linear_dim": 2, "linear_alpha": 3.0},
    "full": {"factor": 4, "full_matrix": True},
    "rank above half": {"factor": 4, "linear_dim": 7},  # full w2 where it is small, factored where it is large
}


def made(dit: DiT, whole: bool, **settings: object) -> dict[str, Tensor]:
    """What lycoris-lora writes for the blocks, or for all layers but the refiner's joined q, k and v; alpha != rank."""
    torch.manual_seed(4)
    part = dit if whole else nn.ModuleDict({"double_blocks": dit.double_blocks})
    network = create_lycoris(part, 1.0, **({"algo": "lokr", "linear_dim": 4, "linear_alpha": 2.0} | settings))
    network.apply_to()  # only then it has parameters
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    network.restore()
    file = {key: value.detach() for key, value in network.state_dict().items()}
    linear = {f"lycoris_{name.replace('.', '_')}" for name in linears(dit, inside="") if "self_attn_qkv" not in name}
    return {key: value for key, value in file.items() if key.split(".")[0] in linear}


@pytest.fixture(scope="module")
def made_of(loaded_dit: DiT) -> Callable[[str], dict[str, Tensor]]:
    """The file of a kind."""
    return cache(lambda kind: made(copied(loaded_dit), False, **KINDS[kind]))


@pytest.mark.parametrize(
    ("with_metadata", "kind"),
    [
        *(pytest.param(True, kind, id=f"file-{kind}") for kind in KINDS),
        *(
            pytest.param(
                False,
                kind,
                id=f"tensors alone-{kind}",
                marks=[] if kind in ("w2 factored", "full") else [pytest.mark.slow],
            )
            for kind in KINDS
        ),
    ],
)
def test_diffusers_computes_what_we_compute(
    small_dit, peer, made_of: Callable[[str], dict[str, Tensor]], tmp_path: Path, kind: str, with_metadata: bool
):
    file, path = made_of(kind), tmp_path / "lora.safetensors"
    save_lora(tmp_path / "ours.safetensors", file, {"ss_network_dim": "4"})
    metadata = convert_file(tmp_path / "ours.safetensors", path, "diffusers")
    assert "hv15.convert.note" not in metadata
    plain = theirs(peer)
    peer.load_lora_adapter(path if with_metadata else convert(file, "diffusers")[0])
    assert apply_lora(small_dit, file) == 28
    assert (theirs(peer) - plain).abs().max() > 0.01
    assert_close(theirs(peer), ours(small_dit), atol=2e-5, rtol=1e-5)


def test_layers_outside_the_blocks(small_dit, peer, tmp_path: Path):
    """Unequal ranks on layers whose names end alike (`norm_out.linear`), and the final layer's halves turned round."""
    file, path = made(small_dit, True, factor=2), tmp_path / "lora.safetensors"
    assert any("final_layer_adaLN" in key for key in file)
    converted, metadata = convert(file, "diffusers")
    save_lora(path, converted, metadata)
    peer.load_lora_adapter(path)
    apply_lora(small_dit, file)
    assert_close(theirs(peer), ours(small_dit), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("to", ["kohya", pytest.param("comfyui", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back(
    small_dit: DiT,
    loaded_dit: DiT,
    made_of: Callable[[str], dict[str, Tensor]],
    tmp_path: Path,
    kind: str,
    to: str,
):
    file = made_of(kind)
    converted, metadata = convert(file, "diffusers")
    save_lora(tmp_path / "there.safetensors", converted, metadata)
    back, _ = convert(read_lora(tmp_path / "there.safetensors")[0], to)
    twin = copied(loaded_dit)
    apply_lora(small_dit, file)
    apply_lora(twin, back)
    assert_close(ours(twin), ours(small_dit), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        {"r": 3, "alpha": 7, "target_modules": ["attn.to_q", "ff.net.2"], "alpha_pattern": {"ff.net.2": 5}},
        {"r": 40, "alpha": 10, "target_modules": ["attn.to_k"], "rank_pattern": {"attn.to_k": 30}},  # full w2, scaled
        {"r": 2, "alpha": 5, "target_modules": ["attn.to_q"], "decompose_both": True, "decompose_factor": 8},
        {"r": 3, "alpha": 7, "target_modules": ["attn.to_v", "ff.net.0.proj"], "rank_pattern": {"attn.to_v": 2}},
    ],
    ids=["alphas", "full", "both factored", "LoHa"],
)
def test_files_that_peft_writes_are_read(
    small_dit, peer, tmp_path: Path, config: dict[str, object], request: pytest.FixtureRequest
):
    import peft

    peer.add_adapter((peft.LoHaConfig if "LoHa" in request.node.name else peft.LoKrConfig)(**config))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in peer.named_parameters():
            if "lokr_" in name or "hada_" in name:
                parameter.normal_(std=0.3)
    peer.save_lora_adapter(tmp_path, adapter_name="default", weight_name="lora.safetensors")
    before = ours(small_dit)
    apply_lora(small_dit, read_lora(tmp_path / "lora.safetensors")[0])
    assert (ours(small_dit) - before).abs().max() > 0.01
    assert_close(ours(small_dit), theirs(peer), atol=2e-5, rtol=1e-5)


def test_sizes_that_no_factor_gives_are_refused(small_dit: DiT):
    file = made(small_dit, False, factor=4, unbalanced_factorization=True)
    with pytest.raises(UserError, match="one factor for all modules, but no factor fits the sizes of these") as error:
        convert(file, "diffusers")
    assert "--svd-rank" in error.value.hint
    converted, metadata = convert(file, "diffusers", svd_rank=8)
    assert not any(".lokr_" in key for key in converted)
    assert "relative error" in metadata["hv15.convert.note"]


def test_lokr_beside_lora_is_refused(small_dit: DiT):
    """diffusers would load only the LoKr, without a warning."""
    file = made(small_dit, False, factor=4)
    some = {key: value for key, value in file.items() if "_0_img_attn_q." not in key}
    with pytest.raises(UserError, match=r"27 of 28 modules have a LoKr.*only LoRA, or only LoKr"):
        convert(some | random_lora({"double_blocks.0.img_attn_q": (48, 48)}), "diffusers")


def test_bad_settings_are_named():
    lora = convert(random_lora({"double_blocks.0.img_attn_q": (48, 48)}), "official")[0]
    for settings in (
        {"lora_alpha": "8"},
        {"lora_alpha": 8, "alpha_pattern": [1]},
        {"lora_alpha": 8, "alpha_pattern": {"(": 1}},
        {"lora_alpha": 10**400},
    ):
        with pytest.raises(UserError, match="not what PEFT writes"):
            convert(lora, "kohya", metadata={ADAPTER_METADATA: json.dumps(settings)})


def test_factorization_is_that_of_peft():
    from peft.tuners.lokr.layer import factorization as peft_factorization

    for dimension in range(1, 300):
        for factor in (-1, *range(1, 20)):
            assert factorization(dimension, factor) == peft_factorization(dimension, factor)
