"""The optimizers against torch's own and bitsandbytes' own, and their messages."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import nn

from hv15.config.training.optimizer import OptimizerType
from hv15.errors import UserError
from hv15.train.optimizers import make_optimizer, set_learning_rate

pytestmark = pytest.mark.numeric


def matrices() -> list[nn.Parameter]:
    torch.manual_seed(3)
    return [nn.Parameter(torch.randn(8, 1024)), nn.Parameter(torch.randn(1024, 8))]  # large enough for 8-bit state


def stepped(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], steps: int = 4) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=rng)
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


def reference(name: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if name == "AdamW":
        return torch.optim.AdamW(parameters, lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)
    if name == "Muon":
        return torch.optim.Muon(parameters, lr=0.01, weight_decay=0.01, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit(parameters, lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("AdamW", {"betas": (0.9, 0.95), "weight_decay": 0.1}),
        ("AdamW8bit", {"betas": (0.9, 0.95), "weight_decay": 0.1}),
        ("Muon", {"momentum": 0.9}),
    ],
)
def test_the_steps_are_those_of_the_library(name: OptimizerType, args: dict[str, Any]) -> None:
    ours, theirs = matrices(), matrices()
    ours_after = stepped(make_optimizer(name, [{"params": ours, "lr": 0.01}], args), ours)
    theirs_after = stepped(reference(name, theirs), theirs)
    for mine, other, before in zip(ours_after, theirs_after, matrices(), strict=True):
        assert torch.equal(mine, other)
        assert not torch.equal(mine, before)


def test_muon_moves_by_the_learning_rate_as_adamw_does() -> None:
    """Root mean square of a step: 0.2 * lr for Muon with its matched scale, so one rate serves both."""
    parameters = matrices()
    before = [parameter.detach().clone() for parameter in parameters]
    after = stepped(make_optimizer("Muon", [{"params": parameters, "lr": 0.01}], {"weight_decay": 0.0}), parameters, 1)
    for old, new in zip(before, after, strict=True):
        assert 0.1 < (new - old).square().mean().sqrt() / 0.01 < 0.4


@pytest.mark.parametrize("name", ["AdamW", "AdamW8bit", "Muon"])
def test_a_restored_state_continues_bit_for_bit(name: OptimizerType, tmp_path: Any) -> None:
    straight = matrices()
    stepped(make_optimizer(name, [{"params": straight, "lr": 0.01}]), straight, 6)

    parts = matrices()
    first = make_optimizer(name, [{"params": parts, "lr": 0.01}])
    rng = torch.Generator().manual_seed(0)
    gradients = [[torch.randn(p.shape, generator=rng) for p in parts] for _ in range(6)]
    optimizer = first
    for step, each in enumerate(gradients):
        if step == 3:
            torch.save(optimizer.state_dict(), tmp_path / "state.pt")
            parts = [nn.Parameter(p.detach().clone()) for p in parts]
            optimizer = make_optimizer(name, [{"params": parts, "lr": 0.01}])
            optimizer.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        for parameter, gradient in zip(parts, each, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
    for mine, other in zip(parts, straight, strict=True):
        assert torch.equal(mine, other)


def test_8bit_state_is_8_bits() -> None:
    parameters = matrices()
    optimizer = make_optimizer("AdamW8bit", [{"params": parameters, "lr": 0.01}])
    stepped(optimizer, parameters, 1)
    assert optimizer.state[parameters[0]]["state1"].dtype == torch.uint8


def test_each_group_keeps_its_own_peak() -> None:
    first, second = matrices()
    optimizer = make_optimizer("AdamW", [{"params": [first], "lr": 0.01}, {"params": [second], "lr": 0.16}])
    assert set_learning_rate(optimizer, 0.5) == 0.005
    assert set_learning_rate(optimizer, 0.25) == 0.0025
    assert [group["lr"] for group in optimizer.param_groups] == [0.0025, 0.04]


@pytest.mark.parametrize("name", ["AdamW", "AdamW8bit", "Muon"])
def test_an_unknown_argument_is_named_with_its_neighbours(name: OptimizerType) -> None:
    with pytest.raises(UserError, match=r"train\.optimizer_args\.weight_dacay.*did you mean weight_decay") as caught:
        make_optimizer(name, [{"params": matrices(), "lr": 0.01}], {"weight_dacay": 0.1})
    assert "weight_decay" in caught.value.hint


@pytest.mark.parametrize("args", [{"lr": 1.0}, {"params": 1}, {"betas": (2.0, 0.9)}, {"betas": 0.9}])
def test_arguments_that_are_not_the_users_or_make_no_sense_are_refused(args: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="optimizer_args"):
        make_optimizer("AdamW", [{"params": matrices(), "lr": 0.01}], args)


def test_a_missing_bitsandbytes_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "bitsandbytes"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as Python has it: its import fails
    with pytest.raises(UserError, match=r"AdamW8bit: bitsandbytes cannot be loaded: ") as caught:
        make_optimizer("AdamW8bit", [{"params": matrices(), "lr": 0.01}])
    assert "AdamW" in caught.value.hint
