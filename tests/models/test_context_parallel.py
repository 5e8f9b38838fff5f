"""Several processes that compute one batch together give what one process gives: gradients, a LoRA, a sample."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hv15.config import Settings
from hv15.errors import UserError
from hv15.models import Condition, DiT
from hv15.models.attention import Attention
from hv15.models.context_parallel import ContextParallel, join
from hv15.models.ready import set_up
from hv15.records.metrics import SIGMA_BINS
from hv15.sample.denoise import denoise
from hv15.train.examples import Example
from hv15.train.networks import make_network
from hv15.train.run import make_optimizer_step
from tests.models.ranks import on_ranks
from tests.train import world
from tests.train.world import tiny_dit

pytestmark = pytest.mark.numeric

CONFIG = replace(world.CONFIG, num_heads=4, num_blocks=3, rope_dims=(2, 2, 4))
GRID = (3, 5, 3)
"""45 image tokens, which neither 2 nor 4 ranks divide."""
FLAG = 2 * SIGMA_BINS + 2
"""The place of the first flag among the numbers of a step: after two rows by noise level and two of the prior."""
OPTIONS: dict[str, dict[str, Any]] = {
    "kept activations": {"gradient_checkpointing": False},
    "checkpointing": {},
    "swap": {"blocks_to_swap": 1},
    "offload": {"gradient_checkpointing_cpu_offload": True},
    "split attention": {"split_attn": True},
    "dropout": {"rank_dropout": 0.3, "module_dropout": 0.2},
}


def condition(seed: int, *, i2v: bool = False) -> Condition:
    """Two samples of 7 and 4 text tokens, 0 and 3 glyphs."""
    rng = torch.Generator().manual_seed(seed)
    return Condition(
        text=torch.randn(2, 7, 16, generator=rng),
        text_lengths=[7, 4],
        glyphs=torch.randn(2, 3, 10, generator=rng),
        glyph_lengths=[0, 3],
        vision=torch.randn(2, 5, 12, generator=rng) if i2v else None,
    )


def example(seed: int) -> Example:
    rng = torch.Generator().manual_seed(seed)
    x0, noise = (torch.randn(2, 4, *GRID, generator=rng) for _ in range(2))
    return Example(x0, noise, torch.tensor([0.3, 0.8]), torch.ones(2), torch.zeros(2), condition(seed))


def settings(ranks: int, train: dict[str, Any], sample: dict[str, Any] | None = None) -> Settings:
    # With a small eps, Adam's step is as large for a gradient of nothing but rounding as for any other.
    adam = {"learning_rate": 1e-2, "optimizer_type": "AdamW", "optimizer_args": {"eps": 1e-3}}
    base = {"network_dim": 4, "network_alpha": 4, **adam}
    return Settings.model_validate(
        {
            "models": {"source": "demo"},
            "datasets": [{"video_directory": "clips"}],
            "train": {**base, **train, "context_parallel": ranks},
            "sample": {**(sample or {}), "context_parallel": ranks},
        }
    )


def trained(ranks: int, options: dict[str, Any], most_tokens: int) -> dict[str, Tensor]:
    """Two training steps of two micro-batches each: gradients of the first, numbers of both, the LoRA."""
    asked, dit = settings(ranks, options), tiny_dit(CONFIG)
    dit.most_tokens = most_tokens
    set_up(dit, asked.train, "cpu")
    network = make_network(asked, dit)
    with torch.no_grad():
        for index, parameter in enumerate(network.parameters()):  # `up` starts at zero, which would hide `down`
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)), alpha=0.05)
    step = make_optimizer_step(asked.train, dit, network, torch.device("cpu"), ranks)
    found: dict[str, Tensor] = {}

    def keep(*_: object) -> None:
        found.update({name: each.grad.clone() for name, each in network.named_parameters() if each.grad is not None})

    handle = step.optimizer.register_step_pre_hook(keep)
    for number in range(2):
        micro_batches = ((index, example(index)) for index in range(2 * number, 2 * number + 2))
        queued = step.run(micro_batches, micro_batches=2, samples=4, lr_factor=1.0, flags=lambda: [True])
        found[f"numbers {number}"] = queued.tensor.nan_to_num()  # numbers that are not measured are NaN
        handle.remove()
    return {**found, **{f"trained {name}": tensor for name, tensor in network.state_dict().items()}}


COVERED = (
    *(f"{name}-windows" for name in ("checkpointing", "offload", "split attention", "dropout")),
    *(f"{name}-whole" for name in OPTIONS if name != "dropout"),
)
"""With dropout, checkpointing is tried as well; few tokens differ in nothing but the windows. Swap stays for all hooks
of blocks, and sampling tries split attention."""


@pytest.mark.parametrize(
    ("name", "most_tokens"),
    [
        pytest.param(name, most, id=each, marks=[pytest.mark.slow] if each in COVERED else [])
        for most, kind in ((20, "windows"), (8192, "whole"))
        for name in OPTIONS
        if (each := f"{name}-{kind}")
    ],
)
def test_training_is_that_of_one_process(name: str, most_tokens: int) -> None:
    """Gradients, losses, their norm and the LoRA after two steps; the ranks hold equal weights to the bit."""
    expected = trained(1, OPTIONS[name], most_tokens)
    expected["numbers 0"][FLAG] = expected["numbers 1"][FLAG] = 2  # the flag, set on both ranks
    first, second = on_ranks(2, trained, 2, OPTIONS[name], most_tokens)
    assert any(tensor.any() for key, tensor in expected.items() if "txt" in key and "trained" not in key)
    for key, tensor in expected.items():
        assert torch.equal(first[key], second[key]), key
        difference = (first[key] - tensor).abs().max()
        assert difference <= (2e-5 if "trained" in key else 2e-6) + 1e-4 * tensor.abs().max(), key


def sampled(ranks: int, options: dict[str, Any], *, batch_cfg: bool, i2v: bool) -> Tensor:
    dit = tiny_dit(CONFIG)
    dit.most_tokens = 20
    set_up(dit, settings(ranks, {}, options).sample, "cpu")
    rng = torch.Generator().manual_seed(5)
    noise = torch.randn(2, 4, *GRID, generator=rng)
    first = torch.randn(2, 4, 1, *GRID[1:], generator=rng) if i2v else None
    sigmas = torch.tensor([1.0, 0.6, 0.0])
    return denoise(dit, noise, condition(1, i2v=i2v), condition(2, i2v=i2v), sigmas, 6.0, first, batch_cfg=batch_cfg)


@pytest.mark.parametrize(
    ("ranks", "options", "batch_cfg", "i2v"),
    [
        (2, {}, False, False),
        (2, {"split_attn": True}, True, True),
        (2, {"blocks_to_swap": 1}, True, False),
        (4, {}, True, True),
    ],
)
def test_sampling_is_that_of_one_process(ranks: int, options: dict[str, Any], batch_cfg: bool, i2v: bool) -> None:
    """Two steps with guidance; with 4 ranks the last one's share is shorter than the others'."""
    expected = sampled(1, options, batch_cfg=batch_cfg, i2v=i2v)
    found = on_ranks(ranks, _sampled, ranks, options, batch_cfg, i2v)
    assert all(torch.equal(each, found[0]) for each in found)
    assert_close(found[0], expected, atol=1e-5, rtol=1e-5)


def _sampled(ranks: int, options: dict[str, Any], batch_cfg: bool, i2v: bool) -> Tensor:
    return sampled(ranks, options, batch_cfg=batch_cfg, i2v=i2v)


@pytest.mark.parametrize(("tokens", "ranks"), [(6, 2), (7, 2), (9, 4), (3, 4), (1, 2)])
def test_shares_are_equal_and_make_the_whole(tokens: int, ranks: int) -> None:
    whole = torch.arange(1.0, 2 * tokens + 1).view(1, tokens, 2)
    shares = [ContextParallel(ranks, rank).share(whole, 1) for rank in range(ranks)]
    assert {share.shape for share in shares} == {(1, -(-tokens // ranks), 2)}
    assert torch.equal(torch.cat(shares, 1)[:, :tokens], whole)
    assert not torch.cat(shares, 1)[:, tokens:].any()
    assert torch.equal(ContextParallel(ranks, 1).share(whole.transpose(1, 2), -1), shares[1].transpose(1, 2))


def exchanged(tokens: int, text: int) -> tuple[Tensor, Tensor]:
    parallel = join(2, 4, "cpu", "train")
    assert parallel is not None
    rng = torch.Generator().manual_seed(parallel.rank)
    share = -(-tokens // 2) - (-text // 2)
    own = torch.randn(2, share, 4, 3, generator=rng)
    return own, parallel.heads_to_tokens(parallel.tokens_to_heads(own, tokens, text), tokens, text)


@pytest.mark.parametrize(("tokens", "text"), [(6, 4), (7, 3), (1, 1)])
def test_exchanges_are_inverse(tokens: int, text: int) -> None:
    """Padding, which belongs to the last rank, comes back as zeros."""
    for rank, (own, back) in enumerate(on_ranks(2, exchanged, tokens, text)):
        image = -(-tokens // 2)
        expected = own.clone()
        if rank == 1:
            expected[:, tokens - image : image] = 0
            expected[:, image + text + text // -2 :] = 0
        assert torch.equal(back, expected)


def grouped() -> tuple[int, int, int]:
    parallel = join(2, 4, "cpu", "train")
    assert parallel is not None
    rank = torch.tensor([float(torch.distributed.get_rank())])
    torch.distributed.all_reduce(rank, group=parallel.group)
    return parallel.size, parallel.rank, int(rank)


def test_neighbouring_processes_are_a_group() -> None:
    """0 and 1, 2 and 3: with several such groups, each trains on batches of its own."""
    assert on_ranks(4, grouped) == [(2, 0, 1), (2, 1, 1), (2, 0, 5), (2, 1, 5)]


def test_off_is_nothing_at_all() -> None:
    assert join(1, 4, "cpu", "train") is None
    assert DiT(CONFIG).context_parallel is None


@pytest.mark.parametrize(
    ("size", "heads", "message"), [(3, 16, "16 attention heads"), (2, 16, "processes, which is 1")]
)
def test_what_cannot_be_divided_is_refused(size: int, heads: int, message: str) -> None:
    with pytest.raises(UserError, match=f"sample.context_parallel: {size} does not (divide|fit) .*{message}") as caught:
        join(size, heads, "cpu", "sample")
    assert ("2, 4, 8, 16" in caught.value.hint) == (size == 3)


def test_a_plan_needs_no_other_process() -> None:
    """Its attention has all tokens and a share of the heads."""
    parallel = join(4, 4, "meta", "train")
    assert parallel == ContextParallel(4)
    computed: list[tuple[int, ...]] = []

    def kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        computed.append(tuple(q.shape))
        return q

    q = torch.empty(2, 12 + 2, 4, 8, device="meta")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hv15.models.attention.fused_attention", lambda *qkv: (kernel(*qkv), None))
        out = parallel.attention(Attention(), 45, 7)(q, q, q, [12 + 7, 12 + 7])
    assert computed == [(2, 45 + 7, 1, 8)]
    assert out.shape == (2, 14, 32)
    assert replace(parallel, rank=3).share(q, 1).shape[1] == 4


def least() -> int:
    parallel = join(2, 4, "cpu", "sample")
    assert parallel is not None
    return parallel.least(10**12 + (5, 3)[parallel.rank], torch.device("cpu"))


def test_ranks_agree_on_the_smallest_value() -> None:
    """As the free memory, by which all must decide alike."""
    assert on_ranks(2, least) == [10**12 + 3] * 2
