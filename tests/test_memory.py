"""Following storages: what is counted, to which part it belongs, and that it goes when it is freed."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from hv15.memory import ACTIVATIONS, ATTENTION, WEIGHTS, PeakMemory

KIB = 256  # floats of 1 KiB


def test_what_lives_at_one_time_is_the_peak():
    with PeakMemory("cpu") as memory:
        a = torch.empty(4 * KIB)
        b = a + 1
        del a
        c = b[: 2 * KIB].clone()
        assert memory.now == 4096 + 2048
        del b, c
    assert (memory.now, memory.peak) == (0, 8192)


def test_views_and_what_was_there_before_are_not_counted():
    before = torch.empty(KIB)
    with PeakMemory("cpu") as memory:
        views = [before[:10], before.view(2, -1), before.t(), before.add_(1)]
        assert memory.now == 0
    assert len(views) == 4


def test_a_storage_that_grows_counts_as_large_as_it_is():
    with PeakMemory("cpu") as memory:
        tensor = torch.empty(0)
        tensor.resize_(KIB)
        assert memory.now == 1024


def test_parts_are_those_of_the_moment_of_the_peak():
    layer = nn.Linear(KIB, 4 * KIB, bias=False).requires_grad_(False)
    with PeakMemory("cpu") as memory:
        memory.assign(WEIGHTS, layer)
        with memory.making("given"):
            x = torch.zeros(2, KIB)
        y = layer(x)
        del x
        torch.empty(KIB)
    assert memory.parts == {WEIGHTS: 4 * KIB * KIB * 4, "given": 2048, ACTIVATIONS: 8192}
    assert y.shape == (2, 4 * KIB)


def test_what_attention_reads_and_writes_is_its_own_part():
    with PeakMemory("cpu") as memory:
        q, k, v = torch.rand(3, 1, 2, 16, 8)
        out = scaled_dot_product_attention(q, k, v)
        mask = torch.empty(KIB)
    assert memory.parts[ATTENTION] >= 4 * out.nbytes
    assert memory.parts[ACTIVATIONS] == mask.nbytes


def test_moments_have_their_own_peaks():
    with PeakMemory("cpu") as memory:
        memory.begin("first")
        kept = torch.empty(KIB)
        torch.empty(2 * KIB)
        memory.begin("second")
        torch.empty(KIB)
        memory.begin("first")
        torch.empty(4 * KIB)
    assert {moment: sum(parts.values()) for moment, parts in memory.moments.items()} == {"first": 5120, "second": 2048}
    assert kept.shape == (KIB,)


def test_bytes_that_no_tensor_shows_count_for_a_moment():
    with PeakMemory("cpu") as memory:
        memory.passing("workspace", 1000)
    assert (memory.now, memory.peak, memory.parts) == (0, 1000, {"workspace": 1000})


@pytest.mark.parametrize("checkpointed", [False, True])
def test_without_data_a_training_step_takes_what_it_takes_with_data(checkpointed: bool):
    """To the byte: kept activations, gradients, the optimizer's moments, and what lives between them."""

    def step(device: str) -> tuple[int, dict[str, int]]:
        torch.manual_seed(0)
        with torch.device(device):
            layers = nn.ModuleList(nn.Sequential(nn.Linear(32, 128), nn.GELU(), nn.Linear(128, 32)) for _ in range(4))
            x = torch.zeros(64, 32)
        optimizer = torch.optim.AdamW(layers.parameters(), foreach=False)
        with PeakMemory(device) as memory:
            memory.assign(WEIGHTS, layers)
            for _ in range(2):
                y = x
                for layer in layers:
                    y = torch.utils.checkpoint.checkpoint(layer, y, use_reentrant=False) if checkpointed else layer(y)
                y.square().mean().backward()
                del y
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        return memory.peak, memory.parts

    assert step("cpu") == step("meta")
