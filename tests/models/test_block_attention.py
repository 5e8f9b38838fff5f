"""Sage attention in a range of blocks: which blocks get it, that the others do not, and that nothing else takes over.

Its package runs on GPUs alone, so a stand-in computes the plain formula here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from hv15.config.sample import SampleSettings
from hv15.errors import UserError
from hv15.models import Condition, DiT
from hv15.models.attention import PACKAGES, Attention, pick_block_attention
from hv15.models.ready import reset, set_up
from tests.models.golden_dit import TINY
from tests.models.test_attention import CPU, CUDA, FUNCTIONS, install, on_gpu, plain

pytestmark = pytest.mark.numeric

BLOCKS = 5
SIZES = replace(TINY, num_blocks=BLOCKS)


def pick(blocks: tuple[int, int] | None, **changes: Any) -> dict[int, Attention]:
    options: dict[str, Any] = {"split": False, "device": CUDA, "dtype": torch.bfloat16, **changes}
    return pick_block_attention(blocks, BLOCKS, **options)


def small_dit() -> DiT:
    torch.manual_seed(1)
    return DiT(SIZES).requires_grad_(False).eval()


def velocity(dit: DiT) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(1, SIZES.in_channels, 2, 3, 4, generator=generator)
    cond = Condition(torch.randn(1, 5, SIZES.text_dim, generator=generator), [5], torch.zeros(1, 0, 32), [0])
    with torch.no_grad():
        return dit(x, torch.tensor([600.0]), cond)


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [(None, []), ((0, 0), [0]), ((1, 3), [1, 2, 3]), ((4, 4), [4]), ((0, 4), [0, 1, 2, 3, 4])],
    ids=str,
)
def test_the_kernel_runs_in_these_blocks_and_in_no_other(
    blocks: tuple[int, int] | None, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in gives twice the attention. Of a block's linear output, that is what its neighbours do not get."""
    on_gpu(monkeypatch, (9, 0))
    calls: list[int] = []

    def doubled(q: Tensor, k: Tensor, v: Tensor, tensor_layout: str) -> Tensor:
        calls.append(running[-1])
        return 2 * plain(q, k, v)

    install(monkeypatch, PACKAGES["sage"].module, sageattn=doubled)
    dit, running = small_dit(), list[int]()
    for index, block in enumerate(dit.double_blocks):
        block.register_forward_pre_hook(lambda *_, index=index: running.append(index))
    usual = velocity(dit)
    dit.block_attention = pick(blocks)
    found = velocity(dit)
    assert calls == expected
    assert torch.equal(found, usual) == (not expected)

    by_hand = small_dit()
    for index in expected:  # twice the attention, by weights: the output's projection takes it
        block = by_hand.double_blocks[index]
        block.img_attn_proj.weight.mul_(2)
        block.txt_attn_proj.weight.mul_(2)
    torch.testing.assert_close(found, velocity(by_hand), atol=1e-5, rtol=1e-5)


def test_with_the_plain_formula_as_kernel_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu(monkeypatch, (9, 0))
    install(monkeypatch, PACKAGES["sage"].module, **FUNCTIONS["sage"])
    dit = small_dit()
    usual = velocity(dit)
    dit.block_attention = pick((2, 4))
    torch.testing.assert_close(velocity(dit), usual, atol=1e-5, rtol=1e-5)
    reset(dit)
    assert not dit.block_attention
    assert torch.equal(velocity(dit), usual)


def test_split_attention_holds_for_these_blocks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu(monkeypatch, (9, 0))
    install(monkeypatch, PACKAGES["sage"].module, **FUNCTIONS["sage"])
    assert {each.split for each in pick((0, 4), split=True).values()} == {True}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": CPU}, "sage_blocks: sage runs only on GPUs, not on cpu"),
        ({"dtype": torch.float32}, "sage_blocks: sage takes bfloat16 or float16, not float32"),
        ({"capability": (7, 5)}, "sage_blocks: sage does not run on a GPU"),
        ({"installed": False}, "sage_blocks: sage needs the package sageattention, which is not installed"),
    ],
)
def test_where_it_cannot_run_it_is_refused(
    changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_gpu(monkeypatch, changes.pop("capability", (9, 0)))
    if changes.pop("installed", True):
        install(monkeypatch, PACKAGES["sage"].module, **FUNCTIONS["sage"])
    else:
        monkeypatch.setattr("hv15.models.attention.find_spec", lambda module: None)
    with pytest.raises(UserError, match=message) as caught:
        pick((0, 1), **changes)
    assert "remove sage_blocks" in caught.value.hint


def test_blocks_that_the_transformer_has_not_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu(monkeypatch, (9, 0))
    with pytest.raises(UserError, match=r"sample\.sage_blocks: \[3, 5\], but the transformer's blocks are 0 to 4"):
        pick((3, 5))


def test_a_real_machine_without_a_gpu_says_so_when_the_transformer_is_set_up() -> None:
    with pytest.raises(UserError, match="sage_blocks: sage runs only on GPUs"):
        set_up(small_dit(), SampleSettings(sage_blocks=(0, 1)), "cpu")


def test_a_plan_runs_fewer_blocks_and_needs_no_package() -> None:
    with torch.device("meta"):
        dit = DiT(SIZES)
    set_up(dit, SampleSettings(sage_blocks=(0, 53)), "meta")
    assert not dit.block_attention
