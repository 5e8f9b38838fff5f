"""ComfyUI's fp8 files: read as they are, or as plain numbers, in both spellings, and what is refused."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close

from hv15.errors import UserError
from hv15.lora import LoRANetwork, merge_patch
from hv15.models import DiT, load_dit
from hv15.models.dit_files import merge_dit
from hv15.models.layouts import writing_recipes
from hv15.models.weights.quantised import FastFp8Linear, Fp8Linear, QuantisedLinear
from hv15.records.metadata import MODEL_SIZES
from tests.lora.samples import delta, linears, random_lora, run
from tests.models.golden_dit import TINY, golden_dit, tensors

pytestmark = pytest.mark.numeric

Q = "double_blocks.0.img_attn_q"
PREFIX = "model.diffusion_model."


def published(
    spelling: str, *, dtype: torch.dtype = torch.float8_e4m3fn, by_row: bool = False, rest: torch.dtype = torch.float16
) -> tuple[dict[str, Tensor], DiT]:
    """A file as ComfyUI's converters write it, and the model that it means, restated in float64."""
    state = tensors("dit_weights")
    made = {key: recipe.make(state.__getitem__) for key, recipe in writing_recipes("comfyui", state).items()}
    file: dict[str, Tensor] = {}
    meant: dict[str, Tensor] = {}
    for key, value in made.items():
        module = key.removesuffix(".weight")
        if not (key.startswith("double_blocks.") and key.endswith(".weight") and value.ndim == 2):
            file[key] = value.to(rest)
            meant[key] = file[key].double()
            continue
        size = value.abs().amax(1, keepdim=True) if by_row else value.abs().max()
        scale = size / torch.finfo(dtype).max if spelling != "none" else torch.ones(())
        file[key] = (value / scale).to(dtype)
        meant[key] = file[key].double() * scale.double()
        if spelling == "scale_weight":
            file[f"{module}.scale_weight"], file[f"{module}.scale_input"] = scale, torch.ones(())
        if spelling == "weight_scale":
            text = json.dumps({"format": str(dtype).removeprefix("torch.")}).encode()
            file[f"{module}.weight_scale"] = scale
            file[f"{module}.comfy_quant"] = torch.tensor(list(text), dtype=torch.uint8)
    if spelling == "scale_weight":
        file["scaled_fp8"] = torch.empty(0, dtype=dtype)
    dit = golden_dit().double()
    for key, tensor in dit.state_dict().items():
        fused = key.replace("attn_q.", "attn_qkv.").replace("attn_k.", "attn_qkv.").replace("attn_v.", "attn_qkv.")
        third = "qkv".index(key.split(".")[-2][-1]) if fused != key else 0
        tensor.copy_(meant[fused].chunk(3 if fused != key else 1)[third])
    return file, dit.float()


def write(folder: Path, file: dict[str, Tensor], prefix: str = "", metadata: dict[str, str] | None = None) -> Path:
    metadata = {MODEL_SIZES: json.dumps(asdict(TINY))} | (metadata or {})
    save_file({prefix + key: value.contiguous() for key, value in file.items()}, folder / "fp8.safetensors", metadata)
    return folder / "fp8.safetensors"


COVERING = (
    ("scale_weight", False, torch.float8_e4m3fn),
    ("weight_scale", True, torch.float8_e5m2),
    ("none", False, torch.float8_e4m3fn),
)


@pytest.mark.parametrize(
    ("spelling", "by_row", "dtype"),
    [
        pytest.param(*each, marks=[] if each in COVERING else [pytest.mark.slow])
        for each in itertools.product(
            ("scale_weight", "weight_scale", "none"), (False, True), (torch.float8_e4m3fn, torch.float8_e5m2)
        )
    ],
)
def test_the_model_is_the_one_that_the_file_means(tmp_path: Path, spelling: str, by_row: bool, dtype: torch.dtype):
    if by_row and spelling == "none":
        return
    file, meant = published(spelling, dtype=dtype, by_row=by_row)
    path = write(tmp_path, file, PREFIX)
    wanted = run(meant)
    plain = load_dit(path, dtype=torch.float32)
    assert not any(isinstance(layer, QuantisedLinear) for layer in plain.modules())
    assert_close(run(plain), wanted, atol=1e-5, rtol=0)
    kept = load_dit(path, dtype=torch.float32, quantize="fp8")
    layer = kept.get_submodule(Q)
    assert isinstance(layer, Fp8Linear)
    fused = file["double_blocks.0.img_attn_qkv.weight"]
    assert torch.equal(layer.weight.view(torch.uint8), fused[:48].view(torch.uint8))  # the codes of the file
    assert_close(run(kept), wanted, atol=1e-5, rtol=0)


def test_number_formats(tmp_path: Path):
    """None keeps float8, with activations in the format of the rest of the file; other kinds quantise it again."""
    file, meant = published("scale_weight", rest=torch.bfloat16)
    path = write(tmp_path, file)
    kept = load_dit(path)
    assert kept.dtype == torch.bfloat16
    layers = [layer for layer in kept.modules() if isinstance(layer, QuantisedLinear)]
    assert len(layers) == 28
    assert all(type(layer) is Fp8Linear and layer.scale.shape == (1, 1) for layer in layers)
    fast = load_dit(path, dtype=torch.float32, quantize="fp8_fast")
    assert type(fast.get_submodule(Q)) is FastFp8Linear
    wanted = run(meant)
    for quantize, bound in (("fp8_fast", 0.07), ("int8", 0.03), ("nf4", 0.2)):
        found = run(load_dit(path, dtype=torch.float32, quantize=quantize))
        assert 0 < (found - wanted).norm() / wanted.norm() < bound


def test_what_is_not_a_weight_of_the_blocks_may_be_in_fp8_too(tmp_path: Path):
    """Some files cast everything to float8; biases and first layers then become plain numbers."""
    state = {key: value.to(torch.float8_e4m3fn) for key, value in tensors("dit_weights").items()}
    for dtype, quantize in ((None, None), (torch.float32, None), (torch.float32, "fp8")):
        dit = load_dit(write(tmp_path, state), dtype=dtype, quantize=quantize)
        assert dit.dtype == (dtype or torch.bfloat16)
        assert isinstance(dit.get_submodule(Q), Fp8Linear) == (quantize is not None or dtype is None)
        for key in ("final_layer.linear.weight", "img_in.proj.weight", f"{Q}.bias"):
            assert torch.equal(dit.state_dict()[key].float(), state[key].float())


def test_a_lora_is_trained_on_it(tmp_path: Path):
    """The codes stay, and the gradients equal those on the plain numbers that the file stands for."""
    file, meant = published("weight_scale")
    dit = load_dit(write(tmp_path, file), dtype=torch.float32, quantize="fp8")
    dit.gradient_checkpointing = True
    gradients = []
    for base in (dit, meant):
        network = LoRANetwork(base, rank=4, alpha=4.0)
        for name, parameter in network.named_parameters():
            if "lora_up" in name:
                parameter.data.normal_(std=0.02, generator=torch.Generator().manual_seed(len(name)))
        run(base).square().mean().backward()
        gradients.append({name: p.grad for name, p in network.named_parameters() if p.grad is not None})
    assert len(gradients[0]) == 50
    for name, wanted in gradients[1].items():
        assert_close(gradients[0][name], wanted, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("spelling", ["scale_weight", pytest.param("none", marks=pytest.mark.slow)])
def test_a_lora_is_merged_into_it(tmp_path: Path, spelling: str):
    """Float8 weights become plain numbers in the format of the rest of the file, so the file grows."""
    file, meant = published(spelling, rest=torch.bfloat16)
    path = write(tmp_path, file)
    lora = random_lora(linears(meant), rank=3, alpha=4.0)
    merge_dit(path, tmp_path / "merged.safetensors", [merge_patch(lora)], layout="comfyui")
    merged = load_file(tmp_path / "merged.safetensors")
    assert {value.dtype for value in merged.values()} == {torch.bfloat16}
    assert set(merged) == {key for key in file if not key.endswith(("scale_weight", "scale_input", "scaled_fp8"))}
    for third, part in enumerate("qkv"):
        module = f"double_blocks.1.txt_attn_{part}"
        wanted = (meant.get_submodule(module).weight.double() + delta(lora, module)).bfloat16()
        found = merged["double_blocks.1.txt_attn_qkv.weight"].chunk(3)[third]
        assert (found != wanted).float().mean() < 0.01  # ties after the fp32 sum
        assert_close(found, wanted)
    untouched = "final_layer.linear.weight"
    assert torch.equal(merged[untouched], file[untouched])
    on_the_way = load_dit(path, quantize="fp8", merge=[merge_patch(lora)])
    weight = on_the_way.get_submodule(Q).dequantised()
    wanted = (meant.get_submodule(Q).weight.double() + delta(lora, Q)).float()
    assert (weight - wanted).norm() / wanted.norm() < 0.04


def test_headers_alone_make_the_model_on_the_meta_device(tmp_path: Path):
    file, _ = published("weight_scale")
    path = write(tmp_path, file)
    kept = load_dit(path, device="meta").state_dict()
    real = load_dit(path).state_dict()
    assert {key: (value.shape, value.dtype) for key, value in kept.items()} == {
        key: (value.shape, value.dtype) for key, value in real.items()
    }
    assert {value.device.type for value in kept.values()} == {"meta"}


def _declares(file: dict[str, Tensor]) -> None:
    text = json.dumps({"format": "nvfp4"}).encode()
    file["double_blocks.0.img_mlp.fc1.comfy_quant"] = torch.tensor(list(text), dtype=torch.uint8)


DAMAGES: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "no weight": (
        lambda file: file.update({"double_blocks.0.img_mlp.fc3.scale_weight": torch.ones(())}),
        r"double_blocks\.0\.img_mlp\.fc3\.scale_weight belongs to no fp8 weight",
    ),
    "by blocks": (
        lambda file: file.update({"double_blocks.0.img_mlp.fc1.scale_weight": torch.ones(192, 3)}),
        r"has the shape \[192, 3\], expected one scale for .*, or one for each of its 192 rows",
    ),
    "nvfp4": (_declares, r"double_blocks\.0\.img_mlp\.fc1 is quantised as nvfp4, which is not supported"),
    "text": (
        lambda file: file.update({"double_blocks.0.img_mlp.fc1.comfy_quant": torch.zeros(3, dtype=torch.uint8)}),
        "the description of its quantisation cannot be read",
    ),
    "nf4": (
        lambda file: file.update({"double_blocks.0.img_mlp.fc1.weight.absmax": torch.ones(3)}),
        r"quantised weights of an unsupported kind \(double_blocks\.0\.img_mlp\.fc1\.weight\.absmax\)",
    ),
    "int8": (
        lambda file: file.update({"double_blocks.0.img_mlp.fc1.SCB": torch.ones(3)}),
        "quantised weights of an unsupported kind",
    ),
    "nan": (
        lambda file: file["double_blocks.0.img_mlp.fc1.weight"].view(torch.uint8).fill_(0x7F),
        r"double_blocks\.0\.img_mlp\.fc1\.weight holds NaN",
    ),
    "nan scale": (
        lambda file: file["double_blocks.0.img_mlp.fc1.scale_weight"].fill_(torch.nan),
        r"the scale of double_blocks\.0\.img_mlp\.fc1\.weight holds NaN",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_cannot_be_read_is_named(tmp_path: Path, damage: str):
    file, _ = published("scale_weight")
    change, words = DAMAGES[damage]
    change(file)
    with pytest.raises(UserError, match=words) as error:
        load_dit(write(tmp_path, file))
    assert "bf16" in error.value.hint or damage.startswith("nan")


def test_formats_in_the_metadata(tmp_path: Path):
    file, _ = published("scale_weight")
    for declared, fits in (("float8_e4m3fn", True), ("mxfp8", False)):
        text = json.dumps({"format_version": "1.0", "layers": {Q: {"format": declared}}})
        path = write(tmp_path, file, metadata={"_quantization_metadata": text})
        if fits:
            load_dit(path)
            continue
        with pytest.raises(UserError, match="quantised as mxfp8"):
            load_dit(path)
