"""Conversions change names and shapes, never a weight's change; ComfyUI's own rule is the judge."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hv15.errors import UserError
from hv15.lora import convert
from hv15.lora.kinds import detect_lora_layout
from hv15.records.metadata import CONVERSION_NOTE
from tests.lora import comfyui
from tests.lora.samples import QKV, delta, kohya, linears, random_lora, without
from tests.models.golden_dit import golden_dit

pytestmark = pytest.mark.numeric

Q, K, V = (QKV + part for part in "qkv")
SIZES = dict.fromkeys((Q, K, V), (6, 5))
FUSED = "double_blocks.0.img_attn_qkv.weight"


@pytest.fixture(scope="module")
def lora() -> dict[str, Tensor]:
    """A whole LoRA on the tiny model, in kohya's layout."""
    return random_lora(linears(golden_dit()), rank=4, alpha=8.0)


def comfy_keys(modules: list[str]) -> list[str]:
    return list(
        dict.fromkeys(
            name.replace("_attn_q", "_attn_qkv") + ".weight" for name in modules if name[-2:] not in ("_k", "_v")
        )
    )


def comfy_thirds(file: dict[str, Tensor]) -> list[Tensor]:
    """What ComfyUI adds to the rows of q, k and v; nothing in the file may be skipped."""
    found, skipped = comfyui.changes(file, [FUSED])
    assert not skipped
    return list(found[FUSED].chunk(3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("alpha", [8.0, 0.1, 1.7])
def test_comfyui_and_back_is_bit_exact(lora: dict[str, Tensor], dtype: torch.dtype, alpha: float):
    ours = {key: tensor.to(dtype) if tensor.ndim else torch.tensor(alpha) for key, tensor in lora.items()}
    back, _ = convert(convert(ours, "comfyui")[0], "kohya")
    assert back.keys() == ours.keys()
    for key, tensor in ours.items():
        assert back[key].dtype == tensor.dtype, key
        assert torch.equal(back[key], tensor), key


def test_comfyui_applies_what_we_trained(lora: dict[str, Tensor]):
    modules = list(linears(golden_dit()))
    converted, _ = convert(lora, "comfyui")
    found, skipped = comfyui.changes(converted, comfy_keys(modules))
    assert not skipped
    assert len(found) == 2 * 10
    for key, change in found.items():
        name = key.removesuffix(".weight")
        names = [name[:-3] + part for part in "qkv"] if name.endswith("_qkv") else [name]
        expected = torch.cat([delta(lora, each) for each in names])
        assert_close(change, expected, atol=1e-15, rtol=0)


def test_equal_parts_give_alpha_times_three(lora: dict[str, Tensor]):
    converted, _ = convert(lora, "comfyui")
    name = "diffusion_model.double_blocks.1.txt_attn.qkv"
    assert converted[f"{name}.alpha"].item() == 24.0
    assert converted[f"{name}.lora_A.weight"].shape == (12, 48)
    assert converted[f"{name}.lora_B.weight"].shape == (144, 12)


@pytest.mark.parametrize("ranks", [(4, 4, 4), (2, 4, 3), (1, 5, 1)])
@pytest.mark.parametrize("alphas", [(2.0, 2.0, 2.0), (1.0, 7.0, 0.3)])
@pytest.mark.parametrize("missing", [(), (Q,), (K,), (V,), (Q, K), (K, V), (Q, V)])
def test_unequal_and_missing_parts(ranks: tuple[int, ...], alphas: tuple[float, ...], missing: tuple[str, ...]):
    names = (Q, K, V)
    lora = random_lora(SIZES, dict(zip(names, ranks, strict=True)), dict(zip(names, alphas, strict=True)))
    lora = without(lora, missing)
    converted, _ = convert(lora, "comfyui")
    back, _ = convert(converted, "kohya")
    assert {key.split(".")[0] for key in back} == {key.split(".")[0] for key in lora}
    for name, change in zip(names, comfy_thirds(converted), strict=True):
        assert_close(change, delta(lora, name).expand_as(change), atol=2e-7, rtol=0)
        assert_close(delta(back, name), delta(lora, name), atol=2e-7, rtol=0)
        if name not in missing:  # and as small as it was
            down = f"{kohya(name)}.lora_down.weight"
            assert torch.equal(back[down], lora[down])


def test_equal_strengths_of_unequal_ranks_need_no_arithmetic():
    lora = random_lora(SIZES, {Q: 2, K: 4, V: 3}, {Q: 1.0, K: 2.0, V: 1.5}, dtype=torch.bfloat16)
    converted, _ = convert(lora, "comfyui")
    assert {tensor.dtype for tensor in converted.values() if tensor.ndim} == {torch.bfloat16}


def test_folded_strengths_are_kept_in_fp32():
    lora = random_lora(SIZES, 2, {Q: 1.0, K: 0.3, V: 1.0}, dtype=torch.bfloat16)
    for name, change in zip((Q, K, V), comfy_thirds(convert(lora, "comfyui")[0]), strict=True):
        assert_close(change, delta(lora, name), atol=2e-7, rtol=0)


def test_an_untrained_part_survives():
    """The last block's text queries get no gradient: their up stays zero, but they are there."""
    lora = random_lora(SIZES)
    lora[f"{kohya(Q)}.lora_up.weight"].zero_()
    back, _ = convert(convert(lora, "comfyui")[0], "kohya")
    assert all(torch.equal(back[key], tensor) for key, tensor in lora.items())


@pytest.mark.parametrize("rank", [4, 6])
@pytest.mark.parametrize(
    "name", ["diffusion_model.double_blocks.0.img_attn.qkv", "lora_unet_double_blocks_0_img_attn_qkv"]
)
@pytest.mark.parametrize("alpha", [None, 5.0])
def test_a_dense_joint_matrix_is_split_exactly(rank: int, name: str, alpha: float | None):
    """diffusion-pipe trains the joint matrix and writes no alpha; every part keeps the whole down."""
    draw = torch.Generator().manual_seed(1)
    down, up = torch.randn(rank, 5, generator=draw), torch.randn(18, rank, generator=draw)
    file = {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    if alpha is not None:
        file[f"{name}.alpha"] = torch.tensor(alpha)
    split, _ = convert(file, "kohya")
    expected = up.double() @ down.double() * (1.0 if alpha is None else alpha / rank)
    for part, rows in zip((Q, K, V), expected.chunk(3), strict=True):
        assert_close(delta(split, part), rows, atol=1e-14, rtol=0)
    again, _ = convert(split, "comfyui")
    assert torch.equal(again["diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight"], down)  # not three of it
    assert_close(torch.cat(comfy_thirds(again)), expected, atol=1e-14, rtol=0)


@pytest.mark.parametrize(("first", "second"), itertools.permutations(["comfyui", "diffusers", "official", "kohya"], 2))
def test_any_way_round_keeps_every_change(lora: dict[str, Tensor], first: str, second: str):
    there, metadata = convert(lora, first)
    assert detect_lora_layout(there) == first
    between, metadata = convert(there, second, metadata=metadata)
    back, _ = convert(between, "kohya", metadata=metadata)
    for name in linears(golden_dit()):
        assert_close(delta(back, name), delta(lora, name), atol=1e-15, rtol=0)


def test_alphas_in_the_metadata_of_diffusers_and_official_files():
    lora = random_lora(SIZES, {Q: 2, K: 4, V: 4}, 4.0)
    official = {
        f"{name}.lora_{new}.weight": lora[f"{kohya(name)}.lora_{old}.weight"]
        for name in SIZES
        for new, old in (("A", "down"), ("B", "up"))
    }
    settings = {"r": 4, "lora_alpha": 4, "rank_pattern": {Q: 2}, "alpha_pattern": {f"^{V}": 12}}
    back, _ = convert(official, "kohya", metadata={"lora_adapter_metadata": json.dumps(settings)})
    assert [back[f"{kohya(name)}.alpha"].item() for name in (Q, K, V)] == [4.0, 4.0, 12.0]
    rank_stabilised = {"lora_adapter_metadata": json.dumps(settings | {"use_rslora": True})}
    back, _ = convert(official, "kohya", metadata=rank_stabilised)
    assert [back[f"{kohya(name)}.alpha"].item() for name in (K, V)] == [8.0, 24.0]  # alpha / sqrt(4) of rank 4
    back, _ = convert(official, "kohya")
    assert [back[f"{kohya(name)}.alpha"].item() for name in (Q, K, V)] == [2.0, 4.0, 4.0]  # strength 1


def test_metadata_is_kept_but_not_what_became_wrong():
    original = {"hv15.config": "{}", "ss_network_dim": "4", "sshs_model_hash": "x", "lora_adapter_metadata": "{}"}
    _, metadata = convert(random_lora(SIZES), "comfyui", metadata=original)
    assert metadata["hv15.config"] == "{}"
    assert metadata["ss_network_dim"] == "4"
    assert not {"sshs_model_hash", "lora_adapter_metadata"} & metadata.keys()
    assert metadata["hv15.convert.from"] == "kohya"


def loha(names: dict[str, tuple[int, int]]) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(2)
    file = {}
    for rank, (name, (rows, columns)) in enumerate(names.items(), start=2):
        for side in "12":
            file[f"{kohya(name)}.hada_w{side}_a"] = torch.randn(rows, rank, generator=draw)
            file[f"{kohya(name)}.hada_w{side}_b"] = torch.randn(rank, columns, generator=draw)
        file[f"{kohya(name)}.alpha"] = torch.tensor(float(rank))
    return file


def loha_delta(file: dict[str, Tensor], name: str) -> Tensor:
    parts = [file[f"{kohya(name)}.hada_w{i}_{j}"].double() for i in (1, 2) for j in "ab"]
    return (parts[0] @ parts[1]) * (parts[2] @ parts[3]) * (file[f"{kohya(name)}.alpha"].item() / parts[1].shape[0])


def test_loha_joins_exactly_and_comes_back():
    file = loha(SIZES)
    converted, metadata = convert(file, "comfyui")
    assert CONVERSION_NOTE not in metadata
    for name, change in zip(SIZES, comfy_thirds(converted), strict=True):
        assert_close(change, loha_delta(file, name), atol=1e-14, rtol=0)
    back, _ = convert(converted, "kohya")
    assert all(torch.equal(back[key], tensor) for key, tensor in file.items())


def lokr(names: dict[str, tuple[int, int]]) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(3)
    file = {}
    for name in names:
        file[f"{kohya(name)}.lokr_w1"] = torch.randn(2, 1, generator=draw)
        file[f"{kohya(name)}.lokr_w2_a"] = torch.randn(3, 2, generator=draw)
        file[f"{kohya(name)}.lokr_w2_b"] = torch.randn(2, 5, generator=draw)
        file[f"{kohya(name)}.alpha"] = torch.tensor(1.0)
    return file


def test_lokr_becomes_a_difference_and_says_so():
    file = lokr(SIZES)
    converted, metadata = convert(file, "comfyui")
    assert "full differences" in metadata[CONVERSION_NOTE]
    for name, change in zip(SIZES, comfy_thirds(converted), strict=True):
        sides = file[f"{kohya(name)}.lokr_w1"], file[f"{kohya(name)}.lokr_w2_a"] @ file[f"{kohya(name)}.lokr_w2_b"]
        assert_close(change.float(), torch.kron(*sides) * 0.5, atol=1e-6, rtol=0)


JOINED = "double_blocks.0.img_attn.qkv"
UP = torch.arange(36.0).reshape(18, 2) + 1


def test_what_becomes_larger_on_the_way_to_separate_parts_is_told():
    dense = {f"diffusion_model.{JOINED}.lora_A.weight": torch.ones(2, 5), f"diffusion_model.{JOINED}.lora_B.weight": UP}
    assert "1 dense joined q, k, v are taken apart" in convert(dense, "kohya")[1][CONVERSION_NOTE]
    assert CONVERSION_NOTE not in convert(dense, "comfyui")[1]
    block_diagonal = convert(loha(SIZES), "comfyui")[0]
    assert CONVERSION_NOTE not in convert(block_diagonal, "kohya")[1]
    joint = {"lokr_w1": torch.ones(2, 1), "lokr_w2": torch.ones(9, 5)}
    joint = {f"diffusion_model.{JOINED}.{side}": value for side, value in joint.items()}
    assert (
        "3 parts of joined LoKr matrices are written as full differences" in convert(joint, "kohya")[1][CONVERSION_NOTE]
    )


def test_lokr_whose_rows_divide_by_three_stays_lokr():
    """kron(w1, w2) is cut between rows of w1 exactly, and three that share w2 are one again."""
    draw = torch.Generator().manual_seed(0)
    joint = {
        "diffusion_model.double_blocks.0.img_attn.qkv.lokr_w1": torch.randn(6, 5, generator=draw),
        "diffusion_model.double_blocks.0.img_attn.qkv.lokr_w2_a": torch.randn(3, 2, generator=draw),
        "diffusion_model.double_blocks.0.img_attn.qkv.lokr_w2_b": torch.randn(2, 1, generator=draw),
        "diffusion_model.double_blocks.0.img_attn.qkv.alpha": torch.tensor(3.0),
    }
    apart, metadata = convert(joint, "kohya")
    assert CONVERSION_NOTE not in metadata
    assert apart[f"{kohya(K)}.lokr_w1"].shape == (2, 5)
    back, metadata = convert(apart, "comfyui")
    assert CONVERSION_NOTE not in metadata
    assert back.keys() == joint.keys()
    assert all(torch.equal(back[key], tensor) for key, tensor in joint.items())
    without_v, _ = convert(without(apart, [V]), "comfyui")
    assert not without_v["diffusion_model.double_blocks.0.img_attn.qkv.lokr_w1"][4:].any()
    assert convert(without_v, "kohya")[0].keys() == without(apart, [V]).keys()


def test_svd_is_the_nearest_lora_and_tells_its_error():
    file, rounding = lokr(SIZES), 16 * torch.finfo(torch.float32).eps  # of the factors, and of their decomposition
    exact = torch.cat(comfy_thirds(convert(file, "comfyui")[0]))
    for rank, smallest in ((5, 0.0), (2, 1e-3)):
        converted, metadata = convert(file, "comfyui", svd_rank=rank)
        error = (torch.cat(comfy_thirds(converted)) - exact).norm() / exact.norm()
        assert smallest <= error.item() < (rounding if smallest == 0 else 1)
        assert f"rank {rank}" in metadata[CONVERSION_NOTE]
        best = torch.linalg.svdvals(exact)[rank:].norm() / exact.norm()
        assert error.item() == pytest.approx(best.item(), abs=rounding)
    with pytest.raises(UserError, match=r"3 of 3 modules have a LoKr, first .*official layout can hold LoRA only"):
        convert(file, "official")
    for layout, prefix in (("diffusers", "transformer.transformer_blocks.0.attn.to_q"), ("official", Q)):
        assert f"{prefix}.lora_A.weight" in convert(file, layout, svd_rank=2)[0]
    with pytest.raises(UserError, match=r"3 of 4 modules have a LoKr.*only LoRA, or only LoKr"):
        convert(file | random_lora({"double_blocks.0.img_mlp.fc1": (6, 5)}), "diffusers")


def spoilt(**changes: Tensor | None) -> dict[str, Tensor]:
    file = random_lora(SIZES) | {key.replace("__", "."): value for key, value in changes.items() if value is not None}
    return {key: value for key, value in file.items() if changes.get(key.replace(".", "__"), 0) is not None}


Q_KEY = kohya(Q)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (spoilt(**{f"{Q_KEY}__lora_up__weight": None}), "has only"),
        (spoilt(**{f"{Q_KEY}__lora_up__weight": torch.zeros(6, 3)}), "do not fit together"),
        (spoilt(**{f"{Q_KEY}__lora_down__weight": torch.zeros(4, 5, 1, 1)}), "expected a floating-point matrix"),
        (spoilt(**{f"{Q_KEY}__lora_down__weight": torch.zeros(0, 5)}), "expected a floating-point matrix"),
        (spoilt(**{f"{Q_KEY}__alpha": torch.zeros(2)}), "expected one number"),
        (spoilt(**{f"{Q_KEY}__hada_w1_a": torch.zeros(6, 2)}), "is a LoRA, but also has hada_w1_a"),
        (spoilt(**{f"{Q_KEY}__dora_scale": torch.ones(6, 1)}), "DoRA"),
        (spoilt(**{f"{Q_KEY}__lora_mid__weight": torch.ones(6, 1)}), "holds changes of convolutions"),
        (spoilt(lora_te_text_model__lora_down__weight=torch.ones(4, 5)), "1 of 10 tensors belong to no part"),
        ({"unet.transformer_blocks.0.attn.to_q.lora_A.weight": torch.ones(4, 5)}, "1 of 1 tensors belong to no part"),
        (random_lora(SIZES) | convert(random_lora(SIZES), "diffusers")[0], "several layouts"),
        (random_lora(SIZES) | convert(random_lora(SIZES), "comfyui")[0], "changed twice"),
        ({}, "without tensors"),
    ],
)
def test_files_that_cannot_be_converted(file: dict[str, Tensor], words: str):
    with pytest.raises(UserError, match=words):
        convert(file, "comfyui")


def test_dora_of_peft_is_refused():
    lora, _ = convert(random_lora(SIZES), "official")
    with pytest.raises(UserError, match="DoRA"):
        convert(lora, "kohya", metadata={"lora_adapter_metadata": json.dumps({"use_dora": True})})
    magnitude = {f"{Q}.lora_magnitude_vector": torch.ones(6)}
    with pytest.raises(UserError, match="DoRA"):
        convert(lora | magnitude, "kohya")


def test_an_unknown_layout_is_refused():
    with pytest.raises(UserError, match="unknown layout 'a1111'"):
        convert(random_lora(SIZES), "a1111")
