"""Adding, resizing, extracting, dividing, scaling and comparing LoRAs, against torch's own products and SVD."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hv15.errors import UserError
from hv15.lora import convert_file, merge_patch, read_lora, save_lora
from hv15.lora.comparison import Products, compare
from hv15.lora.kinds import BASE_MAGNITUDE
from hv15.lora.merging import merge_to_file
from hv15.lora.toolbox import (
    Written,
    add_loras,
    cast_lora,
    extract_lora,
    resize_lora,
    scale_lora,
    split_lora,
)
from hv15.lora.weighted import WeightedLoRA
from hv15.models import load_dit, save_dit
from tests.lora.samples import kohya, random_lora
from tests.models.golden_dit import golden_dit

SIZES = {f"double_blocks.{block}.img_{part}": (12, 9) for block in range(3) for part in ("attn_q", "mlp.fc1")}
LAYER = "double_blocks.1.img_attn_q"


def saved(path: Path, rank: int = 3, alpha: float = 2.0, seed: int = 0, **changed: Tensor) -> Path:
    lora = random_lora(SIZES, rank, alpha)
    draw = torch.Generator().manual_seed(seed)
    lora = {key: torch.randn(value.shape, generator=draw) if value.ndim else value for key, value in lora.items()}
    save_lora(
        path, lora | changed, {"ss_network_dim": str(rank), "hv15.made_from": "{}", "hv15.validation_loss": "0.4"}
    )
    return path


def delta(path: Path, module: str = LAYER) -> Tensor:
    """What a file adds to a layer's weight."""
    patch = merge_patch(read_lora(path)[0])
    return patch(module, torch.zeros(12, 9)) if module in patch.shapes else torch.zeros(12, 9)


def number(lines: list[str], what: str) -> float:
    found = re.search(rf"{what}: relative error ([\d.e+-]+)", "\n".join(lines))
    assert found, lines
    return float(found[1])


def test_a_sum_is_exact(tmp_path: Path) -> None:
    one, other = saved(tmp_path / "a.safetensors"), tmp_path / "b.safetensors"
    convert_file(saved(tmp_path / "k.safetensors", rank=2, alpha=5.0, seed=1), other, "comfyui")
    out = tmp_path / "out.safetensors"
    assert add_loras([(one, 0.5), (other, -2.0)], Written(out))[0] == "sum: exact"
    assert_close(delta(out), 0.5 * delta(one) - 2 * delta(other), atol=1e-5, rtol=1e-5)
    tensors, metadata = read_lora(out)
    assert tensors[f"{kohya(LAYER)}.lora_down.weight"].shape == (5, 9)
    assert metadata["ss_network_dim"] == "5"
    assert not {"hv15.made_from", "hv15.validation_loss"} & metadata.keys()  # they hold for one file only


def test_a_sum_at_a_rank_is_the_nearest_and_tells_its_error(tmp_path: Path) -> None:
    one, other = saved(tmp_path / "a.safetensors"), saved(tmp_path / "b.safetensors", seed=1)
    out = tmp_path / "out.safetensors"
    lines = add_loras([(one, 1.0), (other, 1.0)], Written(out), rank=2)
    lost = whole = 0.0
    for module in SIZES:
        wanted = (delta(one, module) + delta(other, module)).double()
        left, values, right = torch.linalg.svd(wanted, full_matrices=False)
        assert_close(delta(out, module).double(), left[:, :2] * values[:2] @ right[:2], atol=1e-4, rtol=1e-4)
        lost, whole = lost + values[2:].square().sum().item(), whole + values.square().sum().item()
    assert number(lines, "sum at rank 2") == pytest.approx((lost / whole) ** 0.5, rel=1e-2)


def test_a_sum_with_another_kind_is_a_difference(tmp_path: Path) -> None:
    one = saved(tmp_path / "a.safetensors")
    difference = {f"{kohya(LAYER)}.diff": torch.ones(12, 9)}
    save_lora(tmp_path / "b.safetensors", difference, {})
    out = tmp_path / "out.safetensors"
    lines = add_loras([(one, 1.0), (tmp_path / "b.safetensors", 3.0)], Written(out))
    assert "1 layers are full differences" in lines[1]
    assert_close(delta(out), delta(one) + 3)


@pytest.mark.parametrize("energy", [0.5, 0.9, 0.999, 1.0])
def test_a_share_of_the_energy(tmp_path: Path, energy: float) -> None:
    """The smallest rank that keeps the share, for each layer."""
    path, out = saved(tmp_path / "a.safetensors", rank=6), tmp_path / "out.safetensors"
    resize_lora(path, Written(out), energy=energy)
    for module in SIZES:
        values = torch.linalg.svdvals(delta(path, module).double()).square()
        kept = torch.linalg.matrix_rank(delta(out, module))
        shares = values.cumsum(0) / values.sum()
        assert shares[kept - 1] >= energy - 1e-6
        assert kept == 1 or shares[kept - 2] < energy


def test_resizing_up_changes_nothing(tmp_path: Path) -> None:
    path, out = saved(tmp_path / "a.safetensors"), tmp_path / "out.safetensors"
    assert resize_lora(path, Written(out), rank=64)[0] == "resized: exact"
    assert_close(delta(out), delta(path), atol=1e-5, rtol=1e-5)


def test_what_was_merged_is_extracted(tmp_path: Path) -> None:
    dit = golden_dit()
    base, tuned, out = (tmp_path / f"{name}.safetensors" for name in ("base", "tuned", "out"))
    save_dit(dit, base, layout="diffusers")
    names = ("double_blocks.0.img_attn_q", "double_blocks.0.txt_mlp.fc2")
    layers = {name: dit.get_submodule(name) for name in names}
    lora = random_lora(layers, rank=3, alpha=2.0)
    save_lora(tmp_path / "lora.safetensors", lora, {})
    merge_to_file(base, [WeightedLoRA(tmp_path / "lora.safetensors")], tuned, layout="comfyui")
    lines = extract_lora(base, tuned, Written(out, "comfyui"), rank=3)
    assert number(lines, "difference at rank 3") < 1e-5
    found = compare(tmp_path / "lora.safetensors", out)
    assert found.whole.difference < 1e-5
    assert found.layers.keys() == layers.keys()
    with pytest.raises(UserError, match="the same linear layers"):
        extract_lora(base, base, Written(out), rank=3)


def test_what_a_lora_cannot_hold_is_told(tmp_path: Path) -> None:
    dit = golden_dit()
    save_dit(dit, tmp_path / "base.safetensors")
    with torch.no_grad():
        dit.get_parameter("double_blocks.0.img_attn_q.bias").add_(1)
        dit.get_parameter("double_blocks.0.img_attn_q.weight")[0].add_(1)
    save_dit(dit, tmp_path / "tuned.safetensors")
    lines = extract_lora(
        tmp_path / "base.safetensors", tmp_path / "tuned.safetensors", Written(tmp_path / "out.safetensors"), rank=4
    )
    assert "1 other tensors differ and are left out, first double_blocks.0.img_attn_q.bias" in lines[1]


def test_blocks_are_divided_without_loss(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors")
    split_lora(path, [(0, 0), (2, 2)], tmp_path)
    parts = [tmp_path / f"a.{name}.safetensors" for name in ("blocks-0-0", "blocks-2-2", "rest")]
    out = tmp_path / "sum.safetensors"
    add_loras([(part, 1.0) for part in parts], Written(out))
    for module in SIZES:
        assert_close(delta(out, module), delta(path, module))
    assert not delta(parts[0]).any()
    with pytest.raises(UserError, match="no layer in blocks 7 to 9"):
        split_lora(path, [(7, 9)], tmp_path)
    with pytest.raises(UserError, match="--blocks 0-1 1-2: some overlap"):
        split_lora(path, [(0, 1), (1, 2)], tmp_path)


def test_a_strength_is_scaled_exactly(tmp_path: Path) -> None:
    path, out = saved(tmp_path / "a.safetensors"), tmp_path / "out.safetensors"
    scale_lora(path, 0.3, Written(out), only=lambda part: part == LAYER)
    assert_close(delta(out), delta(path) * 0.3)
    other = "double_blocks.0.img_attn_q"
    assert torch.equal(delta(out, other), delta(path, other))
    downs = [read_lora(each)[0][f"{kohya(LAYER)}.lora_down.weight"] for each in (path, out)]
    assert torch.equal(*downs)
    with pytest.raises(UserError, match="changes no layer"):
        scale_lora(path, 0.3, Written(out), only=lambda part: False)


def test_rounding_is_told(tmp_path: Path) -> None:
    path, out = saved(tmp_path / "a.safetensors"), tmp_path / "out.safetensors"
    lines = cast_lora(path, Written(out, dtype=torch.bfloat16))
    assert 1e-4 < number(lines, "rounded to bfloat16") < 4e-3
    assert cast_lora(out, Written(path, dtype=torch.float32))[0] == "rounded to float32: exact"


@pytest.mark.parametrize("tool", ["add", "resize", "scale"])
def test_a_dora_is_no_sum(tmp_path: Path, tool: str) -> None:
    path = saved(tmp_path / "a.safetensors", **{f"{kohya(LAYER)}.{BASE_MAGNITUDE}": torch.ones(12, 1)})
    out = Written(tmp_path / "out.safetensors")
    tools = {
        "add": lambda: add_loras([(path, 1.0)], out),
        "resize": lambda: resize_lora(path, out, rank=2),
        "scale": lambda: scale_lora(path, 0.5, out),
    }
    with pytest.raises(UserError, match="is a DoRA, whose change depends on the base weights") as caught:
        tools[tool]()
    path = saved(tmp_path / "a.safetensors", **{f"{kohya(LAYER)}.dora_scale": torch.ones(12, 1)})  # of another program
    with pytest.raises(UserError, match="is a DoRA, whose change depends on the base weights") as other:
        tools[tool]()
    assert other.value.hint == caught.value.hint  # none of the tools has --base


def test_unknown_keys_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors", **{"text_model.lora_down.weight": torch.ones(2, 2)})
    with pytest.raises(UserError, match="belong to no part of HunyuanVideo"):
        cast_lora(path, Written(tmp_path / "out.safetensors"))


def test_angles_and_norms(tmp_path: Path) -> None:
    one, other = saved(tmp_path / "a.safetensors"), saved(tmp_path / "b.safetensors", rank=2, seed=1)
    found = compare(one, other)
    a, b = (torch.cat([delta(path, module).flatten() for module in SIZES]) for path in (one, other))
    assert found.whole.norms == pytest.approx((a.norm().item(), b.norm().item()), rel=1e-4)
    assert found.whole.cosine == pytest.approx(torch.cosine_similarity(a, b, dim=0).item(), abs=1e-4)
    assert found.whole.difference == pytest.approx(((a - b).norm() / max(a.norm(), b.norm())).item(), rel=1e-4)
    assert list(found.by_block()) == ["block 0", "block 1", "block 2"]
    assert len(found.most_different(99)) == len(SIZES)


def test_the_same_in_another_layout_does_not_differ(tmp_path: Path) -> None:
    one = saved(tmp_path / "a.safetensors")
    convert_file(one, tmp_path / "b.safetensors", "diffusers")
    found = compare(one, tmp_path / "b.safetensors")
    assert found.most_different(9) == []
    assert found.only == ((), ())


def test_what_cancels_out_is_compared_as_nothing(tmp_path: Path) -> None:
    """Rounding makes some of its squared norms negative."""
    one, negative, out = saved(tmp_path / "a.safetensors"), tmp_path / "b.safetensors", tmp_path / "c.safetensors"
    scale_lora(one, -0.7, Written(negative))
    add_loras([(one, 0.7), (negative, 1.0)], Written(out))
    found = compare(one, out)
    assert found.whole.norms[1] < 1e-5 * found.whole.norms[0]
    assert found.whole.difference == pytest.approx(1.0)
    assert Products(1e-30, -1e-30, 0.0).cosine is None


def test_layers_of_other_sizes_are_not_compared(tmp_path: Path) -> None:
    one, other = saved(tmp_path / "a.safetensors"), tmp_path / "b.safetensors"
    save_lora(other, random_lora({LAYER: (12, 6)}, 2, 1.0), {})
    with pytest.raises(
        UserError, match=rf"b.safetensors: {LAYER} changes a weight of \[12, 6\], in .*a.safetensors of"
    ):
        compare(one, other)


def test_checkpoints_are_compared(tmp_path: Path) -> None:
    dit = golden_dit()
    save_dit(dit, tmp_path / "a.safetensors", layout="comfyui")
    with torch.no_grad():
        dit.get_parameter("double_blocks.1.img_attn_q.weight").mul_(2)
    save_dit(dit, tmp_path / "b.safetensors", layout="diffusers")
    found = compare(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert found.most_different(9) == [("double_blocks.1.img_attn_q", pytest.approx(0.5))]
    assert load_dit(tmp_path / "a.safetensors").config == dit.config
    with pytest.raises(UserError, match="is a LoRA"):
        compare(tmp_path / "a.safetensors", saved(tmp_path / "c.safetensors"))


def test_a_number_that_is_too_large_for_a_format_is_named(tmp_path: Path) -> None:
    key = f"{kohya(LAYER)}.lora_up.weight"
    source = saved(tmp_path / "a.safetensors", **{key: torch.full((12, 3), 1e6)})
    target = tmp_path / "half.safetensors"
    with pytest.raises(UserError, match=rf"half\.safetensors: {key} holds 1e\+06, which is too large for float16"):
        cast_lora(source, Written(target, None, torch.float16))
    assert not target.exists()
    cast_lora(source, Written(target, None, torch.bfloat16))
