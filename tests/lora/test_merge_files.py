"""`save_merged_model`: a checkpoint that samples like the model with its LoRAs applied."""

import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.testing import assert_close

from hv15.errors import UserError
from hv15.lora import save_lora
from hv15.lora.merging import merge_to_file
from hv15.lora.weighted import WeightedLoRA, apply_all
from hv15.models import load_dit
from hv15.models.dit_files import save_dit
from hv15.models.weights.checkpoint import open_checkpoint
from hv15.models.weights.fp8_writer import Fp8Writer
from tests.lora.lycoris_files import USABLE, made, mostly_slow
from tests.lora.samples import run
from tests.models.golden_dit import golden_dit
from tests.sample.conftest import make_lora

pytestmark = pytest.mark.numeric


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = tmp_path_factory.mktemp("base") / "dit.safetensors"
    save_dit(golden_dit(), path)
    return path


@pytest.mark.parametrize("layout", ["official", "comfyui", "diffusers"])
def test_merged_equals_applied(base, tmp_path, layout):
    loras = [WeightedLoRA(make_lora(tmp_path / f"{seed}.safetensors", seed), 0.1 * seed) for seed in (1, 2)]
    merge_to_file(base, loras, tmp_path / "merged.safetensors", layout=layout)
    applied = load_dit(base)
    plain = run(applied)
    apply_all(applied, loras)
    found = run(load_dit(tmp_path / "merged.safetensors", config=applied.config))
    assert_close(found, run(applied), atol=1e-5, rtol=1e-5)
    assert (found - plain).abs().max() > 0.05


@pytest.mark.parametrize("kind", mostly_slow(USABLE))
def test_every_kind_of_lycoris_is_merged_as_it_acts(base, tmp_path, kind):
    """alpha/rank once: lycoris-lora 4.1.3's own merge takes it twice in LoHa and LoKr with DoRA."""
    file, expected = made(kind, 0.8)
    save_lora(tmp_path / "lora.safetensors", file, {})
    merge_to_file(base, [WeightedLoRA(tmp_path / "lora.safetensors", 0.8)], tmp_path / "merged.safetensors")
    merged = load_dit(tmp_path / "merged.safetensors", config=golden_dit().config)
    assert_close(run(merged), expected, atol=2e-5, rtol=1e-5)


def test_no_lora_gives_the_checkpoint_back(base, tmp_path):
    merge_to_file(base, [], tmp_path / "merged.safetensors")
    with safe_open(base, "pt") as before, safe_open(tmp_path / "merged.safetensors", "pt") as after:
        assert set(before.keys()) == set(after.keys())
        assert all(torch.equal(before.get_tensor(key), after.get_tensor(key)) for key in before.keys())  # noqa: SIM118


def test_the_dtype_is_chosen(base, tmp_path):
    merge_to_file(base, [], tmp_path / "merged.safetensors", dtype=torch.bfloat16)
    with safe_open(tmp_path / "merged.safetensors", "pt") as file:
        assert file.get_tensor("double_blocks.0.img_attn_q.weight").dtype == torch.bfloat16


def test_a_merge_is_rounded_once_and_says_what_that_loses(base, tmp_path):
    """Into bf16; and not at all where fp32 is written of a base in bf16."""
    lora = WeightedLoRA(make_lora(tmp_path / "lora.safetensors", 1))
    merge_to_file(base, [], tmp_path / "base.safetensors", dtype=torch.bfloat16)
    assert (
        merge_to_file(tmp_path / "base.safetensors", [lora], tmp_path / "exact.safetensors", dtype=torch.float32) == 0
    )
    error = merge_to_file(tmp_path / "base.safetensors", [lora], tmp_path / "rounded.safetensors")
    plain, exact, rounded = (load_file(tmp_path / f"{name}.safetensors") for name in ("base", "exact", "rounded"))
    changed = [key for key, tensor in exact.items() if not torch.equal(tensor, plain[key].float())]
    assert len(changed) > 10
    assert all(torch.equal(rounded[key], exact[key].bfloat16()) for key in changed)
    lost = sum((rounded[key].double() - exact[key].double()).square().sum() for key in changed)
    assert error == pytest.approx(
        math.sqrt(lost / sum(exact[key].double().square().sum() for key in changed)), rel=1e-3
    )
    assert 1e-4 < error < 4e-3


def test_a_missing_lora_is_named_before_the_model_is_read(tmp_path):
    missing, merged = WeightedLoRA(tmp_path / "none.safetensors"), tmp_path / "merged.safetensors"
    with pytest.raises(UserError, match=r"none\.safetensors"):
        merge_to_file(tmp_path / "no-model", [missing], merged)
    assert not merged.exists()


def test_fp8_is_scaled_as_comfyui_reads_it(base, tmp_path):
    """weight * scale_weight, and a marker of two elements, which asks for products in the activations' format."""
    loras = [WeightedLoRA(make_lora(tmp_path / "lora.safetensors", 1), 0.5)]
    fp8 = Fp8Writer()
    merge_to_file(base, loras, tmp_path / "plain.safetensors", layout="comfyui")
    merge_to_file(
        base, loras, tmp_path / "fp8.safetensors", layout="comfyui", dtype=torch.bfloat16, fp8=fp8, shard_bytes=None
    )
    plain, written = load_file(tmp_path / "plain.safetensors"), load_file(tmp_path / "fp8.safetensors")
    assert written["scaled_fp8"].dtype == torch.float8_e4m3fn
    assert written["scaled_fp8"].numel() == 2
    scaled = [key for key in written if key.endswith(".scale_weight")]
    assert {key.split(".")[0] for key in scaled} == {"double_blocks"}
    lost = whole = 0.0
    for key in scaled:
        name = key.replace(".scale_weight", ".weight")
        assert written[name].dtype == torch.float8_e4m3fn
        assert written[key].shape == ()
        lost += (written[name].double() * written[key].double() - plain[name].double()).square().sum().item()
        whole += plain[name].double().square().sum().item()
    assert 1e-3 < fp8.error < 0.05
    assert fp8.error == pytest.approx((lost / whole) ** 0.5, rel=1e-4)
    assert written["double_blocks.0.img_attn_qkv.bias"].dtype == torch.bfloat16
    dit = load_dit(tmp_path / "fp8.safetensors", config=golden_dit().config, dtype=torch.float32)
    expected = load_dit(tmp_path / "plain.safetensors", config=golden_dit().config)
    assert_close(run(dit), run(expected), atol=0.3, rtol=0.1)


@pytest.mark.parametrize("layout", ["comfyui", "diffusers"])
def test_shards_are_one_model(base, tmp_path, layout):
    merge_to_file(base, [], tmp_path / "one.safetensors", layout=layout)
    merge_to_file(base, [], tmp_path / "many", layout=layout, shard_bytes=300_000)
    files = sorted((tmp_path / "many").glob("*.safetensors"))
    assert len(files) > 2
    assert max(file.stat().st_size for file in files) < 400_000
    found, expected = open_checkpoint(tmp_path / "many"), load_file(tmp_path / "one.safetensors")
    assert set(found.keys()) == set(expected)
    assert all(torch.equal(found.tensor(key), value) for key, value in expected.items())
