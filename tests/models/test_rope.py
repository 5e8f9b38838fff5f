"""Positions against recorded tables of the official implementation, at the real sizes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hv15.models.embeddings import timestep_sinusoid
from hv15.models.rope import RopeTables, rope_table, rotate
from tests.models.golden_dit import tensors

pytestmark = pytest.mark.numeric

DIMS, THETA = (16, 56, 56), 256.0


def interleaved(table: Tensor) -> tuple[Tensor, Tensor]:
    """As the reference stores it: cosines and sines, each twice, for both channels of its pair."""
    pairs = table.squeeze(1).repeat_interleave(2, dim=-1)
    return pairs.real, pairs.imag


@pytest.mark.parametrize("grid", [(1, 2, 3), (3, 4, 5)])
def test_tables_are_the_official_ones(grid: tuple[int, int, int]):
    cos, sin = interleaved(rope_table(grid, DIMS, THETA))
    name = "x".join(map(str, grid))
    assert_close(cos, tensors("rope")[f"{name}/cos"], atol=1e-6, rtol=0)
    assert_close(sin, tensors("rope")[f"{name}/sin"], atol=1e-6, rtol=0)


def test_rows_of_a_large_grid_are_the_official_ones():
    recorded = tensors("rope")
    table = rope_table(tuple(recorded["big_grid/thw"].tolist()), DIMS, THETA)
    cos, sin = interleaved(table[recorded["big_grid/index"]])
    assert_close(cos, recorded["big_grid/cos"], atol=1e-5, rtol=0)
    assert_close(sin, recorded["big_grid/sin"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["q", "k"])
def test_rotation_is_the_official_one(name: str):
    recorded = tensors("rope")
    found = rotate(recorded[f"apply/{name}"], rope_table((3, 4, 5), DIMS, THETA))
    assert_close(found, recorded[f"apply/{name}_out"], atol=1e-5, rtol=0)


def test_rotation_of_bf16_is_computed_in_fp32():
    recorded = tensors("rope")
    x, table = recorded["apply/q"].bfloat16(), rope_table((3, 4, 5), DIMS, THETA)
    assert torch.equal(rotate(x, table), rotate(x.float(), table).bfloat16())


def test_attention_depends_on_relative_positions_only():
    """The point of RoPE: moving both tokens by one row leaves their product as it is."""
    q, k = torch.randn(2, 1, 1, 1, 128, generator=torch.Generator().manual_seed(0)).expand(2, 1, 24, 1, 128)
    table = rope_table((2, 4, 3), DIMS, THETA)
    q, k = rotate(q, table).squeeze(), rotate(k, table).squeeze()
    assert_close(q[0] @ k[4], q[3] @ k[7], atol=1e-4, rtol=0)
    assert abs(q[0] @ k[4] - q[0] @ k[7]) > 1e-2


def test_tables_are_built_once_for_a_grid():
    tables = RopeTables(DIMS, THETA)
    device = torch.device("cpu")
    first = tables((2, 3, 4), device)
    assert tables((2, 3, 4), device) is first
    assert tables((2, 4, 3), device) is not first
    for frames in range(1, 40):
        tables((frames, 1, 1), device)
    assert len(tables._tables) < 40


def test_timestep_sinusoid_is_the_official_one():
    """Within what rounding to fp32 may do: exp and the product are not the same to the last bit on every processor.

    An angle of some hundred radians, rounded in its last bit, moves its cosine by 1e-5 and more.
    """
    recorded = tensors("timestep_embedding")
    exact, allowed = _exact_sinusoid(recorded["t"].double(), steps=128)
    for computed in (timestep_sinusoid(recorded["t"]), recorded["emb256"]):
        assert ((computed.double() - exact).abs() <= allowed).all()
    other, _ = _exact_sinusoid(recorded["t"].double(), steps=127)  # periods that end at max_period
    assert ((other - exact).abs() > allowed).any()


def _exact_sinusoid(timestep: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """[B] fp64 -> the exact [B, 256], and how far from it fp32 may be.

    The exponent is rounded twice, which exp turns into a relative error; exp, the product and the cosine round too.
    """
    unit = 2.0**-24
    exponent = -math.log(10_000) * torch.arange(128, dtype=torch.float64) / steps
    angle = timestep[:, None] * exponent.exp()
    allowed = angle * (2 * exponent.abs() + 3) * unit + 2 * unit
    return torch.cat([angle.cos(), angle.sin()], dim=-1), allowed.repeat(1, 2)
