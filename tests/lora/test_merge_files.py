"""`save_merged_model`: a checkpoint that samples like the model with its LoRAs applied."""

import pytest
import torch
from safetensors import safe_open
from torch.testing import assert_close

from hv15.errors import UserError
from hv15.lora import save_lora
from hv15.lora.merging import merge_to_file
from hv15.lora.weighted import WeightedLoRA, apply_all
from hv15.models import load_dit
from hv15.models.dit_files import save_dit
from tests.lora.lycoris_files import USABLE, made
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


@pytest.mark.parametrize("kind", USABLE)
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


def test_a_missing_lora_is_named_before_the_model_is_read(tmp_path):
    missing, merged = WeightedLoRA(tmp_path / "none.safetensors"), tmp_path / "merged.safetensors"
    with pytest.raises(UserError, match=r"none\.safetensors"):
        merge_to_file(tmp_path / "no-model", [missing], merged)
    assert not merged.exists()
