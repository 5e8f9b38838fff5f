"""The plan of a step that several GPUs share, compared with processes that exchange."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from hv15.memory import WEIGHTS
from hv15.models.dit import DiT
from hv15.models.windows import MOST_TOKENS
from hv15.plan.metered_steps import PassSize, run_denoising, run_training
from hv15.plan.transformer import denoising, training
from tests.models.ranks import on_ranks
from tests.plan.steps import (  # noqa: F401  (fixtures)
    SIZE,
    SMALL,
    bitsandbytes_is_imported,
    host_memory_is_elsewhere,
    of_steps,
    settings,
)

SHARED = {
    "plain": {},
    "kept activations": {"gradient_checkpointing": False},
    "split attention": {"split_attn": True},
}


def metered_on_rank(options: dict[str, Any], windows: bool) -> tuple[int, int]:
    """Peaks of a training step and of a sampling step on this rank of two, in bytes."""
    asked = settings({**options, "context_parallel": 2}, {"context_parallel": 2})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DiT, "most_tokens", 40 if windows else MOST_TOKENS)
        trained = run_training(asked, SMALL, torch.float32, SIZE, device="cpu")
        sampled = run_denoising(asked, SMALL, torch.float32, SIZE, guided=True, device="cpu")
    return of_steps(trained), of_steps(sampled)


@pytest.mark.parametrize("windows", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize(
    "name", ["plain", *(pytest.param(name, marks=pytest.mark.slow) for name in ("kept activations", "split attention"))]
)
def test_a_share_of_a_step_takes_what_it_takes_on_two_ranks(
    name: str, windows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both send and receive; in the plan one rank's share runs alone. A buffer of an exchange may be held for a moment
    longer, until the other rank has it."""
    monkeypatch.setattr(DiT, "most_tokens", 40 if windows else MOST_TOKENS)
    asked = settings({**SHARED[name], "context_parallel": 2}, {"context_parallel": 2})
    real = on_ranks(2, metered_on_rank, SHARED[name], windows)
    trained = of_steps(run_training(asked, SMALL, torch.float32, SIZE))
    sampled = of_steps(run_denoising(asked, SMALL, torch.float32, SIZE, guided=True))
    for found in real:
        assert (trained, sampled) == pytest.approx(found, rel=0.02)


@pytest.mark.slow
def test_activations_and_arithmetic_are_divided_among_the_ranks() -> None:
    """Weights are not; what waits in the machine's memory waits for each rank."""
    size = PassSize(1, (8, 16, 16), 16, False)
    for name, count in (("train", 2), ("sample", 4)):
        config = replace(SMALL, num_heads=4, rope_dims=(4, 6, 6), num_blocks=4)
        one, some = (
            training(settings({"context_parallel": ranks, "blocks_to_swap": 2}), config, torch.float32, size)
            if name == "train"
            else denoising(
                settings(sample={"context_parallel": ranks, "blocks_to_swap": 2}),
                config,
                torch.float32,
                size,
                guided=True,
            )
            for ranks in (1, count)
        )
        assert some.parts[WEIGHTS] == one.parts[WEIGHTS]
        moving = [cost.peak - cost.parts[WEIGHTS] for cost in (one, some)]
        assert 1 / count < moving[1] / moving[0] < 1.8 / count
        assert some.flops == pytest.approx(one.flops / count, rel=0.05)
        assert (some.host, some.copied) == (count * one.host, one.copied)


def test_a_divided_base_takes_a_share_of_each_block_and_two_whole_ones() -> None:
    config = replace(SMALL, num_blocks=4)
    whole, divided = (
        training(settings({"num_processes": 4, "shard_base": shard}), config, torch.float32, SIZE)
        for shard in (False, True)
    )
    block = sum(parameter.nbytes for parameter in DiT(config).double_blocks[0].parameters())
    assert whole.parts[WEIGHTS] - divided.parts[WEIGHTS] == 4 * block * 3 // 4 - 2 * block
