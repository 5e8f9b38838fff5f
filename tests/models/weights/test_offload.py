"""What checkpointing keeps goes to the machine's memory and back: less on the device, the same bits."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import Tensor

from hv15.lora import LoRANetwork
from hv15.memory import PeakMemory
from hv15.models import Condition, DiT, DiTConfig
from hv15.models.weights.offload import ActivationOffload
from hv15.models.weights.transfers import HostTransfers, Ticket
from tests.models.weights.test_swap import inputs, model


class Counted(HostTransfers):
    """Counts what is allocated on the host and what is copied to it and from it."""

    def __init__(self) -> None:
        self.allocated: list[int] = []
        self.copies = 0

    def host_memory(self, size: int) -> Tensor:
        self.allocated.append(size)
        return super().host_memory(size)

    def begin(self, target: Tensor, source: Tensor) -> Ticket | None:
        self.copies += 1
        return super().begin(target, source)


@pytest.fixture(autouse=True)
def everything_is_worth_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hv15.models.weights.offload.LEAST", 1)


def gradients(dit: DiT) -> dict[str, Tensor]:
    dit.requires_grad_(True).zero_grad(set_to_none=True)
    dit(*inputs(dit)).square().mean().backward()
    return {name: parameter.grad for name, parameter in dit.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("most", [16, 10**6], ids=["in windows", "at once"])
def test_the_gradients_are_the_same_bits(most: int):
    dit, transfers = model(), Counted()
    dit.gradient_checkpointing, dit.most_tokens = True, most
    plain = {name: gradient.clone() for name, gradient in gradients(dit).items()}
    dit.block_hooks = (ActivationOffload("cpu", transfers),)
    found = gradients(dit)
    assert transfers.copies >= 4 * len(dit.double_blocks)  # image and text tokens of each block, there and back
    assert plain.keys() == found.keys()
    assert all(torch.equal(gradient, found[name]) for name, gradient in plain.items())


def test_host_memory_is_used_again_and_grows_only_with_the_largest_size():
    dit, transfers = model(), Counted()
    offload = ActivationOffload("cpu", transfers)
    dit.gradient_checkpointing, dit.block_hooks = True, (offload,)
    x, t, cond = inputs(dit)
    dit.requires_grad_(True)

    def step(frames: int) -> None:
        dit(x[:, :, :frames], t, cond).square().mean().backward()
        gc.collect()

    step(2)
    first = len(transfers.allocated)
    step(2)
    step(1)
    assert len(transfers.allocated) == first
    step(3)
    assert len(offload._free) == first


def test_sampling_keeps_nothing():
    dit, transfers = model(), Counted()
    dit.gradient_checkpointing, dit.block_hooks = True, (ActivationOffload("cpu", transfers),)
    with torch.no_grad():
        dit(*inputs(dit))
    assert transfers.copies == 0


@pytest.mark.slow
def test_the_device_holds_no_inputs_of_blocks():
    """At full size, on the meta device: the peak no longer grows with the number of blocks."""
    peaks: dict[bool, list[int]] = {False: [], True: []}
    for away, found in peaks.items():
        for blocks in (2, 4):
            with torch.device("meta"):
                dit = DiT(DiTConfig(num_blocks=blocks)).to(torch.bfloat16).requires_grad_(False)
                x, t = torch.empty(1, 65, 5, 30, 52), torch.empty(1)
                cond = Condition(torch.empty(1, 50, 3584), [50], torch.empty(1, 0, 1472), [0])
            LoRANetwork(dit, rank=1, alpha=1)
            dit.gradient_checkpointing, dit.block_hooks = True, (ActivationOffload("meta"),) if away else ()
            with PeakMemory("meta") as memory:
                dit(x, t, cond).float().square().mean().backward()
            found.append(memory.peak)
    tokens = 5 * 30 * 52 * 2048 * 2
    assert peaks[False][1] - peaks[False][0] > 1.8 * tokens
    assert peaks[True][1] - peaks[True][0] < 0.3 * tokens
