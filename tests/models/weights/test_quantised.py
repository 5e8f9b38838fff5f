"""Quantised linear layers: their numbers against the formats' definitions, their error, their size, their gradient."""

from __future__ import annotations

import os
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from hv15.bitsandbytes import bitsandbytes
from hv15.choices import WeightFormat
from hv15.errors import UserError
from hv15.models import DiT
from hv15.models.dit_files import is_block_linear
from hv15.models.weights.quantised import (
    QuantisedLinear,
    ScaledCodes,
    check_weight_format,
    linear,
    quantise,
    replace_linears,
)
from hv15.models.weights.quantised.fp8 import Fp8Linear, codes_product
from hv15.models.weights.quantised.integers import check_nf4

pytestmark = pytest.mark.numeric

KINDS: tuple[WeightFormat, ...] = get_args(WeightFormat)

# The sixteen numbers of NormalFloat, as printed in appendix E of QLoRA (Dettmers et al. 2023).
NF4 = torch.tensor(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
        *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
        *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ]
)


def weights(rows: int = 192, columns: int = 160, *, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    """A weight whose rows are of different sizes, with some outliers, and a bias. (160 columns: 2.5 blocks of fp8.)"""
    draw = torch.Generator().manual_seed(0)
    sizes = torch.exp(spread * torch.randn(rows, 1, generator=draw))
    weight = torch.randn(rows, columns, generator=draw) * sizes * 0.02
    weight[::17, ::13] *= 8
    return weight, torch.randn(rows, generator=draw)


def blocks_of_64(weight: Tensor) -> Tensor:
    """For each number the largest magnitude of its block: 64 columns of its row."""
    parts = [part.abs().amax(1, keepdim=True).expand(-1, part.shape[1]) for part in weight.split(64, dim=1)]
    return torch.cat(parts, 1)


def runs_of_64(weight: Tensor) -> Tensor:
    """The same for 64 consecutive numbers in memory."""
    return weight.reshape(-1, 64).abs().amax(1, keepdim=True).expand(-1, 64).reshape(weight.shape)


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


# -- the numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["fp8", "fp8_fast"])
def test_fp8_is_off_by_half_a_step_at_most(kind: WeightFormat):
    """e4m3: three bits of mantissa down to 2^-6, then equal steps of 2^-9; in units of absmax/448."""
    weight, bias = weights()
    largest = blocks_of_64(weight) if kind == "fp8" else weight.abs().amax(1, keepdim=True).expand_as(weight)
    unit = largest / 448
    found = quantise(weight, bias, kind).dequantised()
    half_a_step = torch.maximum(2.0 ** torch.floor(torch.log2((weight / unit).abs())) / 16, torch.tensor(2.0**-10))
    assert bool(((found - weight).abs() <= half_a_step * unit * 1.001).all())
    at_the_top = weight.abs() == largest
    assert_close(found[at_the_top], weight[at_the_top], rtol=1e-6, atol=0)  # 448 is a code


def test_int8_is_off_by_half_a_step_at_most():
    weight, bias = weights()
    found = quantise(weight, bias, "int8").dequantised()
    step = weight.abs().amax(1, keepdim=True) / 127
    assert bool(((found - weight).abs() <= step * 0.5001).all())


def test_nf4_takes_the_nearest_of_its_sixteen_numbers():
    weight, bias = weights()
    found = quantise(weight, bias, "nf4").dequantised()
    scaled, taken = weight / runs_of_64(weight), found / runs_of_64(weight)
    nearest = NF4[(scaled.unsqueeze(-1) - NF4).abs().argmin(-1)]
    assert (taken - nearest).abs().max() < 1e-5


def plain_nf4(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """NormalFloat restated: codes [numbers], absmax [runs of 64], and the weight that comes back."""
    numbers = weight.flatten().double()
    runs = [numbers[start : start + 64] for start in range(0, len(numbers), 64)]
    absmax = torch.stack([run.abs().max() for run in runs])
    codes = torch.cat(
        [(run / largest - NF4[:, None]).abs().argmin(0) for run, largest in zip(runs, absmax, strict=True)]
    )
    back = torch.cat([NF4[part] * largest.float() for part, largest in zip(codes.split(64), absmax, strict=True)])
    return codes, absmax, back.view(weight.shape)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "shape", [(96, 160), (64, 64), (5, 64), (130, 96), (3, 192), (7, 10), (9, 9), (1, 1), (2, 4096)]
)
def test_nf4_of_any_width_is_plain_torchs(shape: tuple[int, int], dtype: torch.dtype):
    """Rows of whole blocks, rows that share blocks, and a last block that is not full."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    codes, absmax, back = plain_nf4(weight)
    layer = quantise(weight, None, "nf4")
    state = layer.state_dict()
    packed = state["weight"].flatten()
    assert torch.equal(torch.stack([packed >> 4, packed & 15], 1).flatten()[: weight.numel()].long(), codes)
    assert torch.equal(state["absmax"], absmax.float())
    assert torch.equal(layer.dequantised(dtype), back.to(dtype))  # computed in fp32 and rounded once
    assert layer.dequantised().is_contiguous()


@pytest.mark.parametrize("wrong", ["scales of other blocks", "a little in bfloat16"])
def test_wrong_arithmetic_of_the_package_is_named_at_the_first_use(monkeypatch: pytest.MonkeyPatch, wrong: str):
    functional = bitsandbytes("functional")
    right = functional.dequantize_4bit

    def broken(codes: Tensor, state: Any) -> Tensor:
        if wrong == "a little in bfloat16":
            return right(codes, state) * (1.02 if state.dtype == torch.bfloat16 else 1)
        state.absmax = state.absmax.roll(1)
        return right(codes, state)

    monkeypatch.setattr(functional, "dequantize_4bit", broken)
    check_nf4.cache_clear()
    with pytest.raises(
        UserError, match=r"bitsandbytes \d+\.\d.*: its nf4 arithmetic is wrong on this machine \(cpu, "
    ) as caught:
        quantise(*weights(), "nf4")
    assert "another version" in caught.value.hint
    monkeypatch.undo()
    quantise(*weights(), "nf4")


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_stay_zeros(kind: WeightFormat):
    weight, bias = torch.zeros(64, 64), torch.ones(64)
    layer = quantise(weight, bias, kind)
    assert torch.equal(layer.dequantised(), weight)
    assert torch.equal(layer(torch.randn(2, 64)), torch.ones(2, 64))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [192, 130])
def test_rows_are_encoded_in_chunks_to_the_same_codes(kind: WeightFormat, rows: int, monkeypatch: pytest.MonkeyPatch):
    weight, bias = weights(rows)
    whole = quantise(weight, bias, kind).state_dict()
    monkeypatch.setattr(linear, "_CHUNK", 64 * 160)
    chunked = quantise(weight, bias, kind).state_dict()
    assert len(whole) == 3
    for key, tensor in whole.items():
        assert torch.equal(tensor.view(torch.uint8), chunked[key].view(torch.uint8)), key


# -- the error ------------------------------------------------------------------------------------------------------


def test_errors_of_products_are_those_of_the_formats():
    """For a weight of normal numbers and some outliers; a product has the relative error of its factors."""
    weight, bias = weights(spread=0.3)
    x = torch.randn(3, 50, 160, generator=torch.Generator().manual_seed(1))
    plain = x.double() @ weight.double().T
    errors = {kind: error(quantise(weight, bias, kind)(x).double() - bias, plain) for kind in KINDS}
    assert 0.02 < errors["fp8"] < 0.03
    assert 0.004 < errors["int8"] < 0.012  # outliers stretch the one scale of their row
    assert 0.08 < errors["nf4"] < 0.12
    # Both factors are rounded alike: the root of two.
    assert 1.2 < errors["fp8_fast"] / errors["fp8"] < 1.6


@pytest.mark.parametrize("kind", ["fp8", "int8", "nf4"])
def test_a_product_is_that_with_the_dequantised_weight(kind: WeightFormat):
    weight, bias = weights()
    layer = quantise(weight, bias, kind)
    x = torch.randn(2, 7, 160, generator=torch.Generator().manual_seed(1))
    assert_close(layer(x), torch.nn.functional.linear(x, layer.dequantised(), bias), rtol=0, atol=0)


def test_the_fast_product_rounds_tokens_and_rows_to_fp8():
    """Against the same rounding restated in float64, token by token and row by row."""
    weight, bias = weights()
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(2, 7, 160, generator=draw) * torch.exp(3 * torch.randn(2, 7, 1, generator=draw))
    x[0, 0] = 0

    def rounded(values: Tensor) -> Tensor:
        unit = values.abs().amax(-1, keepdim=True).clamp(min=1e-30) / 448
        return (values / unit).to(torch.float8_e4m3fn).double() * unit.double()

    expected = rounded(x) @ rounded(weight).T + bias.double()
    found = quantise(weight, bias, "fp8_fast")(x)
    assert found.shape == (2, 7, 192)
    size = (expected - bias).abs().amax(-1, keepdim=True)
    # The last bit before a rounding decides it now and then, so that a code is its neighbour.
    assert bool(((found - expected).abs() <= 2e-3 * size + 1e-6).all())
    assert (found - expected).norm() / expected.norm() < 1e-3


def test_a_gpu_gets_what_torchs_product_needs(monkeypatch: pytest.MonkeyPatch):
    """Row-major and column-major factors, fp32 scales, no bias; shown on tensors without values."""
    seen = []
    real = torch._scaled_mm

    def product(a: Tensor, b: Tensor, **options: object) -> Tensor:
        seen.append((a, b, options))
        return real(a, b, **options)

    monkeypatch.setattr(torch, "_scaled_mm", product)
    weight, bias = weights()
    layer = quantise(weight, bias, "fp8_fast").to("meta")
    assert layer(torch.randn(2, 7, 160, device="meta").bfloat16()).shape == (2, 7, 192)
    ((a, b, options),) = seen
    assert a.dtype == b.dtype == torch.float8_e4m3fn
    assert (a.shape, b.shape) == ((14, 160), (160, 192))
    assert a.is_contiguous()
    assert b.t().is_contiguous()
    assert options["out_dtype"] == torch.bfloat16
    assert isinstance(scale := options["scale_a"], Tensor)
    assert (scale.dtype, scale.numel()) == (torch.float32, 1)


@pytest.mark.skipif("ONEDNN_MAX_CPU_ISA" in os.environ, reason="oneDNN has no such product with fewer instructions")
def test_the_product_on_a_processor_is_torchs():
    draw = torch.Generator().manual_seed(1)
    tokens, codes = (torch.randn(rows, 160, generator=draw).to(torch.float8_e4m3fn) for rows in (14, 192))
    scale = torch.full((), 1 / 448)
    expected = torch._scaled_mm(tokens, codes.t(), scale_a=scale, scale_b=scale, out_dtype=torch.float32)
    found = codes_product(tokens, codes, torch.float32)
    # Each of 160 sums rounds once, in whatever order.
    size = tokens.double().abs() @ codes.double().abs().t() / 448**2
    assert bool(((found - expected).abs() <= 160 * 2.0**-23 * size).all())


# -- the gradient ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_the_dequantised_weight_and_nothing_is_kept_for_it(kind: WeightFormat):
    weight, bias = weights()
    layer = quantise(weight, bias, kind)
    x = torch.randn(2, 7, 160, generator=torch.Generator().manual_seed(1), requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        out = layer(x)
    assert not kept
    gradient = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
    out.backward(gradient)
    assert_close(x.grad, gradient @ layer.dequantised(), rtol=1e-5, atol=1e-6)
    assert error(x.grad, gradient @ weight) < (0.2 if kind == "nf4" else 0.05)
    assert not any(parameter.requires_grad for parameter in layer.parameters())


@pytest.mark.parametrize(
    "kind", [kind if kind == "fp8" else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_compiled_it_gives_the_same(kind: WeightFormat):
    weight, bias = weights()
    layer = quantise(weight, bias, kind)
    x = torch.randn(2, 7, 160, requires_grad=True)
    plain = layer(x).relu()
    (wanted,) = torch.autograd.grad(plain.sum(), x)
    compiled = torch.compile(lambda x: layer(x).relu(), backend="aot_eager", fullgraph=True)(x)
    assert torch.equal(compiled, plain)
    assert torch.equal(torch.autograd.grad(compiled.sum(), x)[0], wanted)


# -- as a module ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "size"), [("fp8", 1 + 4 / 64), ("fp8_fast", 1 + 4 / 512), ("int8", 1 + 4 / 512), ("nf4", 0.5 + 4 / 64)]
)
def test_bytes_of_a_weight(kind: WeightFormat, size: float):
    """Bits per number of the weight, for codes and scales; on the meta device too, where a plan counts them."""
    for device in ("cpu", "meta"):
        layer = quantise(torch.zeros(256, 512, device=device), None, kind)
        tensors = [*layer.parameters(), *layer.buffers()]
        assert sum(tensor.nbytes for tensor in tensors) == 256 * 512 * size
        assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize("kind", KINDS)
def test_moving_keeps_the_codes_and_casting_is_for_the_bias(kind: WeightFormat):
    weight, bias = weights()
    layer = quantise(weight, bias, kind)
    before = {key: tensor.clone() for key, tensor in layer.state_dict().items()}
    layer.to(torch.bfloat16)
    assert layer.bias is not None
    assert layer.bias.dtype == torch.bfloat16
    for key, tensor in layer.state_dict().items():
        assert key == "bias" or torch.equal(tensor.view(torch.uint8), before[key].view(torch.uint8))
    assert layer(torch.randn(2, 160).bfloat16()).dtype == torch.bfloat16
    assert {tensor.device.type for tensor in layer.to("meta").state_dict().values()} == {"meta"}


def test_scales_of_a_file_are_kept_as_they_are():
    """One scale for the tensor or one for each row, in either kind of float8."""
    weight, bias = weights()
    for scale in (torch.tensor([[0.003]]), weight.abs().amax(1, keepdim=True) / 448):
        for dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
            codes = (weight / scale).to(dtype)
            layer = Fp8Linear(160, 192, dtype=torch.float32)
            layer.take(ScaledCodes(codes, scale), "cpu")
            layer.bias = nn.Parameter(bias, requires_grad=False)
            expected = codes.double() * scale
            assert_close(layer.dequantised().double(), expected, rtol=1e-6, atol=0)
            x = torch.randn(3, 160)
            assert_close(layer(x).double(), x.double() @ expected.T + bias, rtol=1e-4, atol=1e-4)


def test_linears_of_the_blocks_are_replaced_and_nothing_else():
    with torch.device("meta"):
        dit = DiT()
    replaced = replace_linears(dit, "nf4", is_block_linear)
    assert len(replaced) == 54 * 14
    layers = {name for name, layer in dit.named_modules() if isinstance(layer, QuantisedLinear)}
    assert layers == set(replaced)
    assert {name.split(".")[2] for name in replaced} == {
        *(f"{stream}_attn_{part}" for stream in ("img", "txt") for part in ("q", "k", "v", "proj")),
        *(f"{stream}_{part}" for stream in ("img", "txt") for part in ("mod", "mlp")),
    }
    assert isinstance(dit.get_submodule("txt_in.individual_token_refiner.blocks.0.mlp.fc1"), nn.Linear)


def test_unknown_and_impossible_formats_are_refused(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match="quantize: unknown format gguf"):
        check_weight_format("gguf", "cpu")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "RTX 3090")
    with pytest.raises(UserError, match="RTX 3090 cannot multiply fp8 numbers"):
        check_weight_format("fp8_fast", "cuda")
    check_weight_format("fp8", "cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    check_weight_format("fp8_fast", "cuda")
