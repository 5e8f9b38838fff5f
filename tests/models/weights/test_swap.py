"""Block swap: the same bits as without, less memory on the device, and an error for a block that is not there."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hv15.errors import UserError
from hv15.lora import LoRANetwork, apply_lora
from hv15.lora.sizes import AdapterKind
from hv15.memory import PeakMemory
from hv15.models import Condition, DiT, DiTConfig
from hv15.models.weights.quantised import replace_linears
from hv15.models.weights.swap import SLOTS, AbsentWeight, BlockSwap, swapped_indices
from hv15.models.weights.transfers import HostTransfers, Ticket
from tests.models.copies import copied
from tests.train.world import CONFIG

BLOCKS = 6
SIZES = replace(CONFIG, num_blocks=BLOCKS)


class Watched(HostTransfers):
    """Notes every copy to the device, as (block's first byte) of what travels."""

    def __init__(self) -> None:
        self.fetched: list[int] = []

    def begin(self, target: Tensor, source: Tensor) -> Ticket | None:
        if target.dtype == torch.uint8 and target.data_ptr() != source.data_ptr():
            self.fetched.append(source.data_ptr())
        return super().begin(target, source)


def model(kind: Any = None) -> DiT:
    return copied(_made(kind))


@cache
def _made(kind: Any) -> DiT:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dit = DiT(SIZES)
    if kind is not None:
        linears = {name: part for name, part in dit.double_blocks.named_modules() if isinstance(part, nn.Linear)}
        replace_linears(dit.double_blocks, kind, lambda _name: True)
        for name, part in linears.items():
            layer = dit.double_blocks.get_submodule(name)
            layer.quantise_(part.weight)
            layer.bias = part.bias
    return dit.eval().requires_grad_(False)


def inputs(dit: DiT, device: str = "cpu") -> tuple[Tensor, Tensor, Condition]:
    rng, c = torch.Generator().manual_seed(1), dit.config
    x = torch.randn(1, c.in_channels, 3, 4, 5, generator=rng)
    text = torch.randn(1, 7, c.text_dim, generator=rng)
    cond = Condition(text, [7], torch.randn(1, 2, c.glyph_dim, generator=rng), [2])
    return x.to(device), torch.tensor([731.25]).to(device), cond.to(device)


@pytest.mark.parametrize(
    ("blocks", "count", "found"),
    [(54, 0, []), (6, 1, [1, 3, 5]), (6, 4, [0, 1, 2, 3, 4, 5]), (54, 51, list(range(54)))],
)
def test_which_blocks_travel(blocks: int, count: int, found: list[int]):
    indices = swapped_indices(blocks, count)
    if count != 51:
        assert indices == found
    assert len(set(indices)) == (count + SLOTS if count else 0)
    assert all(0 <= index < blocks for index in indices)


def test_more_blocks_than_there_are_is_an_error_with_the_most():
    with pytest.raises(UserError, match=r"blocks_to_swap: 5, but the transformer has 6") as caught:
        BlockSwap(model().double_blocks, 5, "cpu")
    assert "at most 4" in caught.value.hint


@pytest.mark.parametrize("count", [1, pytest.param(3, marks=pytest.mark.slow), 4])
@pytest.mark.parametrize("kind", [None, "fp8"])
def test_sampling_gives_the_same_bits(count: int, kind: Any):
    dit = model(kind)
    x, t, cond = inputs(dit)
    with torch.no_grad():
        plain = dit(x, t, cond)
        dit.block_hooks = (BlockSwap(dit.double_blocks, count, "cpu"),)
        for _ in range(3):
            assert torch.equal(dit(x, t, cond), plain)


@cache
def gradients(count: int, *, most: int, kind: Any = None) -> dict[str, Tensor]:
    dit = model(kind)
    if count:
        dit.block_hooks = (BlockSwap(dit.double_blocks, count, "cpu"),)
    network = LoRANetwork(dit, rank=4, alpha=4, dropout=0.2)
    for name, parameter in network.named_parameters():
        if "lora_up" in name:
            nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(len(name)))
    dit.gradient_checkpointing, dit.most_tokens = True, most
    x, t, cond = inputs(dit)
    for step in range(2):
        network.set_step_seed(step)
        dit(x, t, cond).square().mean().backward()
    return {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}


def test_a_dora_reads_the_norms_of_swapped_blocks():
    dits = model(), model()
    dits[1].block_hooks = (BlockSwap(dits[1].double_blocks, 4, "cpu"),)
    states = [LoRANetwork(dit, rank=2, alpha=2, kind=AdapterKind("dora")).state_dict() for dit in dits]
    assert all(torch.equal(tensor, states[1][key]) for key, tensor in states[0].items())
    with torch.no_grad():
        assert torch.equal(dits[0](*inputs(dits[0])), dits[1](*inputs(dits[1])))


@pytest.mark.parametrize(
    ("count", "most"),
    [
        pytest.param(count, most, id=f"{count}-{name}", marks=[] if (count, most) == (4, 16) else [pytest.mark.slow])
        for count in (1, 4)
        for most, name in ((16, "in windows"), (10**6, "at once"))
    ],
)
def test_training_gives_the_same_bits(count: int, most: int):
    plain, found = gradients(0, most=most), gradients(count, most=most)
    assert plain.keys() == found.keys()
    assert len(plain) > 100
    for name, gradient in plain.items():
        assert torch.equal(gradient, found[name]), name


@pytest.mark.slow
def test_quantised_blocks_are_trained_on_alike():
    plain, found = gradients(0, most=16, kind="fp8"), gradients(3, most=16, kind="fp8")
    assert all(torch.equal(gradient, found[name]) for name, gradient in plain.items())


def test_training_without_checkpointing_is_refused():
    dit = model()
    dit.block_hooks = (BlockSwap(dit.double_blocks, 2, "cpu"),)
    with pytest.raises(ValueError, match="gradient_checkpointing"):
        dit(*inputs(dit))


def test_trainable_blocks_are_refused():
    with pytest.raises(ValueError, match="frozen"):
        BlockSwap(model().requires_grad_(True).double_blocks, 2, "cpu")


def test_a_block_that_is_away_cannot_be_used():
    dit = model()
    dit.block_hooks = (BlockSwap(dit.double_blocks, 4, "cpu"),)
    x, t, cond = inputs(dit)
    with torch.no_grad():
        dit(x, t, cond)
        weight = dit.double_blocks[2].img_attn_q.weight
        assert isinstance(weight, AbsentWeight)
        assert weight.shape == (32, 32)
        with pytest.raises(RuntimeError, match=r"block 2: img_attn_q.weight is used while it is not on the device"):
            dit.double_blocks[2].img_attn_q(torch.zeros(1, 32))
        with pytest.raises(RuntimeError, match="not on the device"):
            weight.sum()
        assert not isinstance(dit.double_blocks[5].img_attn_q.weight, AbsentWeight)  # the last one has just computed


def test_the_next_block_is_fetched_while_one_computes():
    """Each swapped block is copied once in each direction, except those already on the device when it turns."""
    dit, transfers = model(), Watched()
    swap = BlockSwap(dit.double_blocks, 4, "cpu", transfers)
    dit.block_hooks = (swap,)
    number = {swapped.memory.data_ptr(): index for index, swapped in swap._swapped.items()}
    transfers.fetched.clear()
    LoRANetwork(dit, rank=2, alpha=2)
    dit.gradient_checkpointing = True
    for _ in range(2):
        dit(*inputs(dit)).square().mean().backward()
    order = [number[each] for each in transfers.fetched if each in number]
    forward, back = [0, 1, 2, 3, 4, 5], [3, 2, 1, 0]
    assert order == [*forward, *back, *forward[2:], *back]
    transfers.fetched.clear()
    with torch.no_grad():
        for _ in range(2):
            dit(*inputs(dit))
    assert [number[each] for each in transfers.fetched] == [*forward[2:], *forward, 0]


def test_the_state_dict_is_whole_and_removing_gives_the_weights_back():
    dit = model("fp8")
    before = {name: tensor.clone() for name, tensor in dit.state_dict().items()}
    swap = BlockSwap(dit.double_blocks, 4, "cpu")
    dit.block_hooks = (swap,)
    with torch.no_grad():
        plain = dit(*inputs(dit))
        for state in (dit.state_dict(), dit.state_dict()):
            assert state.keys() == before.keys()
            assert all(torch.equal(tensor, before[name]) for name, tensor in state.items())
        swap.remove()
        dit.block_hooks = ()
        assert all(torch.equal(tensor, before[name]) for name, tensor in dit.state_dict().items())
        assert torch.equal(dit(*inputs(dit)), plain)


def test_finished_loras_hang_on_waiting_blocks_too():
    dit = model()
    rng = torch.Generator().manual_seed(2)
    name = "lora_unet_double_blocks_3_img_attn_q"
    lora = {
        f"{name}.lora_down.weight": torch.randn(2, 32, generator=rng),
        f"{name}.lora_up.weight": torch.randn(32, 2, generator=rng),
        f"{name}.alpha": torch.tensor(2.0),
    }
    apply_lora(dit, lora)
    with torch.no_grad():
        plain = dit(*inputs(dit))
        swapped = model()
        swapped.block_hooks = (BlockSwap(swapped.double_blocks, 4, "cpu"),)
        apply_lora(swapped, lora)
        assert torch.equal(swapped(*inputs(swapped)), plain)


def test_the_device_holds_two_blocks_where_all_wait():
    """Measured on the meta device: the host's memory is not counted there."""
    config = DiTConfig(num_blocks=8)
    with torch.device("meta"):
        block = sum(parameter.nbytes for parameter in DiT(replace(config, num_blocks=1)).double_blocks.parameters())
    peaks = []
    for count in (0, 6):
        with torch.device("meta"):
            dit = DiT(config).requires_grad_(False)
            cond = Condition(torch.empty(1, 50, 3584), [50], torch.empty(1, 0, 1472), [0])
            x, t = torch.empty(1, 65, 2, 8, 8), torch.empty(1)
        swaps = [BlockSwap(dit.double_blocks, count, "meta")] if count else []
        dit.block_hooks = tuple(swaps)
        with PeakMemory("meta") as memory, torch.no_grad():
            memory.assign("weights", dit)
            memory.assign("weights", *(slot.memory for swap in swaps for slot in swap.slots))
            dit(x, t, cond)
        peaks.append(memory.peak)
    assert peaks[0] - peaks[1] == pytest.approx(6 * block, rel=0.001)
