"""Hooks on the transformer's blocks: what they are called with, when, and that they change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch

from hv15.config.train import TrainSettings
from hv15.lora import LoRANetwork
from hv15.models.ready import reset, set_up
from hv15.models.weights.block_hooks import BlockHook
from hv15.models.weights.offload import ActivationOffload
from hv15.models.weights.swap import BlockSwap
from tests.models.weights.test_offload import Counted
from tests.models.weights.test_swap import BLOCKS, inputs, model

FORWARD, BACKWARD = list(range(BLOCKS)), list(reversed(range(BLOCKS)))


class Noted(BlockHook):
    """Records its calls."""

    def __init__(self, events: list[str] | None = None, name: str = "") -> None:
        self.events, self.name = [] if events is None else events, name

    def around_blocks(self, *, recomputed: bool) -> AbstractContextManager[object]:
        return self._around(recomputed)

    @contextmanager
    def _around(self, recomputed: bool) -> Iterator[None]:
        self.events.append(f"{self.name}begin {recomputed}")
        yield
        self.events.append(f"{self.name}end")

    def before_block(self, index: int) -> None:
        self.events.append(f"{self.name}{index}")

    def after_attention_backward(self, index: int) -> None:
        self.events.append(f"{self.name}{index} attended")

    def remove(self) -> None:
        self.events.append(f"{self.name}removed")


@pytest.mark.parametrize(
    ("checkpointing", "most_tokens", "backward"),
    [
        (False, 10**6, []),
        (True, 10**6, [f"{index}" for index in BACKWARD]),
        (True, 16, [text for index in BACKWARD for text in (f"{index}", f"{index} attended")]),
    ],
    ids=["kept", "recomputed at once", "recomputed in windows"],
)
def test_a_hook_is_told_of_each_block_in_each_direction(checkpointing: bool, most_tokens: int, backward: list[str]):
    dit, hook = model(), Noted()
    LoRANetwork(dit, rank=1, alpha=1)
    dit.gradient_checkpointing, dit.most_tokens, dit.block_hooks = checkpointing, most_tokens, (hook,)
    velocity = dit(*inputs(dit))
    forward = [f"begin {checkpointing}", *map(str, FORWARD), "end"]
    assert hook.events == forward
    velocity.square().mean().backward()
    assert hook.events == [*forward, *backward]


def test_sampling_recomputes_nothing_whatever_is_set():
    dit, hook = model(), Noted()
    dit.gradient_checkpointing, dit.block_hooks = True, (hook,)
    with torch.no_grad():
        dit(*inputs(dit))
    assert hook.events == ["begin False", *map(str, FORWARD), "end"]


def test_hooks_are_called_in_their_order():
    dit, events = model(), []
    dit.block_hooks = (Noted(events, "a"), Noted(events, "b"))
    with torch.no_grad():
        dit(*inputs(dit))
    blocks = [f"{name}{index}" for index in FORWARD for name in "ab"]
    assert events == ["abegin False", "bbegin False", *blocks, "bend", "aend"]


def test_a_hook_that_overrides_nothing_changes_no_bit():
    dit = model()
    with torch.no_grad():
        plain = dit(*inputs(dit))
        dit.block_hooks = (BlockHook(),)
        assert torch.equal(dit(*inputs(dit)), plain)


def test_an_error_between_blocks_ends_what_is_held():
    """Activation offload hooks all of autograd while it is held."""
    dit, transfers = model(), Counted()
    dit.gradient_checkpointing, dit.block_hooks = True, (ActivationOffload("cpu", transfers), Failing())
    with pytest.raises(ZeroDivisionError):
        dit(*inputs(dit))
    before = transfers.copies
    torch.zeros(2**19, requires_grad=True).square()  # keeps 2 MiB for its backward pass
    assert transfers.copies == before


class Failing(BlockHook):
    def before_block(self, index: int) -> None:
        raise ZeroDivisionError


def test_the_settings_become_hooks_and_reset_takes_them_off():
    dit, noted = model(), Noted()
    set_up(dit, TrainSettings(blocks_to_swap=2, gradient_checkpointing_cpu_offload=True), "cpu")
    assert [type(hook) for hook in dit.block_hooks] == [BlockSwap, ActivationOffload]
    with pytest.raises(ValueError, match="already set up"):
        set_up(dit, TrainSettings(), "cpu")
    dit.block_hooks += (noted,)
    reset(dit)
    assert dit.block_hooks == ()
    assert noted.events == ["removed"]
    set_up(dit, TrainSettings(), "cpu")
    assert dit.block_hooks == ()
