"""The optimizers against their libraries' own and against other implementations of the same papers; their messages."""

from __future__ import annotations

import math
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import nn

from hv15.config import TrainSettings
from hv15.config.training.optimizer import CLASSES, OptimizerName
from hv15.errors import UserError
from hv15.train import optimizer_packages
from hv15.train.optimizer_classes import optimizer_class
from hv15.train.optimizer_packages import MissingPackage
from hv15.train.optimizers import check_optimizer, make_optimizer, set_learning_rate
from tests.train.optimizers import ARGS, matrices, optimizer_of, stepped

pytestmark = [
    pytest.mark.numeric,
    pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU"),
]


def test_every_name_is_tested_and_has_a_class() -> None:
    assert set(ARGS) == set(CLASSES) == set(get_args(OptimizerName))


@pytest.mark.parametrize(
    ("name", "args", "differences"),
    [
        ("AdamW", {"betas": (0.9, 0.95), "weight_decay": 0.1}, {}),
        ("AdamW8bit", {"betas": (0.9, 0.95), "weight_decay": 0.1}, {}),
        ("PagedAdamW8bit", {"betas": (0.9, 0.95), "weight_decay": 0.1}, {}),
        ("Muon", {"momentum": 0.9}, {"weight_decay": 0.01, "adjust_lr_fn": "match_rms_adamw"}),
        ("Adafactor", {"beta1": 0.9}, {"scale_parameter": False, "relative_step": False}),
        ("Lion", {"weight_decay": 0.1}, {}),
        ("CAME", {"weight_decay": 0.1}, {}),
        ("AdEMAMix", {"alpha": 3.0}, {}),
        ("Prodigy", {"d0": 1e-4, "weight_decay": 0.1}, {}),
        ("ProdigyPlusScheduleFree", {"d0": 1e-4}, {"split_groups": False}),
        ("AdamWScheduleFree", {"weight_decay": 0.1}, {}),
        ("torch.optim.NAdam", {"momentum_decay": 0.01}, {}),
    ],
)
def test_the_steps_are_those_of_the_library(name: str, args: dict[str, Any], differences: dict[str, Any]) -> None:
    ours, theirs = matrices(), matrices()
    stepped(optimizer_of(name, ours, **args), ours)
    module, _, short = CLASSES.get(name, name).rpartition(".")
    rate = 1.0 if "Prodigy" in name else 0.01
    reference = getattr(import_module(module), short)(theirs, lr=rate, **{**args, **differences})
    if "ScheduleFree" in name:
        reference.train()
    stepped(reference, theirs)
    for mine, other, before in zip(ours, theirs, matrices(), strict=True):
        assert torch.equal(mine, other)
        assert not torch.equal(mine, before)


@pytest.mark.parametrize(
    ("name", "other", "args"),
    [
        ("Lion", "pytorch_optimizer.Lion", {"betas": (0.9, 0.99), "weight_decay": 0.1}),
        ("AdEMAMix", "pytorch_optimizer.AdEMAMix", {"weight_decay": 0.0}),
        ("Prodigy", "pytorch_optimizer.Prodigy", {"d0": 1e-4}),
        ("AdamWScheduleFree", "pytorch_optimizer.ScheduleFreeAdamW", {"betas": (0.9, 0.999)}),
    ],
)
def test_another_implementation_of_the_same_paper_agrees(name: str, other: str, args: dict[str, Any]) -> None:
    ours, theirs = matrices(), matrices()
    rate = 1.0 if name == "Prodigy" else 0.01
    stepped(optimizer_of(name, ours, **args), ours)
    stepped(make_optimizer(other, [{"params": theirs, "lr": rate}], args), theirs)
    for mine, its in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, its, atol=2e-5, rtol=1e-4)


def test_came_is_that_of_its_paper() -> None:
    """Algorithm 2 of Luo et al. 2023, for a matrix, in float64."""
    [parameter] = parameters = [nn.Parameter(torch.linspace(-1, 1, 48).view(6, 8))]
    theta = parameter.detach().double()
    optimizer = optimizer_of("CAME", parameters)
    row, column = torch.zeros(6, 1).double(), torch.zeros(1, 8).double()
    unstable_row, unstable_column, m = row.clone(), column.clone(), torch.zeros(6, 8).double()
    for step in range(4):
        rng = torch.Generator().manual_seed(step)
        gradient = (0.3 * torch.randn(6, 8, generator=rng) + 0.3 * theta.float() + 0.5).double()
        stepped(optimizer, parameters, [step])
        squared = gradient**2 + 1e-30
        row = 0.999 * row + 0.001 * squared.mean(1, keepdim=True)
        column = 0.999 * column + 0.001 * squared.mean(0, keepdim=True)
        u = gradient / (row @ column / row.mean()).sqrt()
        u = u / max(1.0, float(u.square().mean().sqrt()))
        m = 0.9 * m + 0.1 * u
        instability = (u - m) ** 2 + 1e-16
        unstable_row = 0.9999 * unstable_row + 0.0001 * instability.mean(1, keepdim=True)
        unstable_column = 0.9999 * unstable_column + 0.0001 * instability.mean(0, keepdim=True)
        theta = theta - 0.01 * m / (unstable_row @ unstable_column / unstable_row.mean()).sqrt()
    torch.testing.assert_close(parameter.detach().double(), theta, atol=1e-4, rtol=1e-4)


def test_adafactor_is_that_of_its_paper() -> None:
    """Algorithm 4 of Shazeer and Stern 2018, its rate from outside; decay 1 - t^-0.8, updates clipped to mean 1."""
    [parameter] = parameters = [nn.Parameter(torch.linspace(-1, 1, 48).view(6, 8))]
    theta = parameter.detach().double()
    optimizer = optimizer_of("Adafactor", parameters)
    row, column = torch.zeros(6, 1).double(), torch.zeros(1, 8).double()
    for step in range(4):
        rng = torch.Generator().manual_seed(step)
        gradient = (0.3 * torch.randn(6, 8, generator=rng) + 0.3 * theta.float() + 0.5).double()
        stepped(optimizer, parameters, [step])
        beta = 1 - (step + 1) ** -0.8
        row = beta * row + (1 - beta) * (gradient**2 + 1e-30).mean(1, keepdim=True)
        column = beta * column + (1 - beta) * (gradient**2 + 1e-30).mean(0, keepdim=True)
        u = gradient / (row @ column / row.mean()).sqrt()
        theta = theta - 0.01 * u / max(1.0, float(u.square().mean().sqrt()))
    torch.testing.assert_close(parameter.detach().double(), theta, atol=1e-5, rtol=1e-5)


def test_muon_moves_by_the_learning_rate_as_adamw_does() -> None:
    """Root mean square of a step: 0.2 * lr for Muon with its matched scale, so one rate serves both."""
    parameters = matrices()
    before = [parameter.detach().clone() for parameter in parameters]
    after = stepped(optimizer_of("Muon", parameters, weight_decay=0.0), parameters, range(1))
    for old, new in zip(before, after, strict=True):
        assert 0.1 < (new - old).square().mean().sqrt() / 0.01 < 0.4


def test_8bit_state_is_8_bits() -> None:
    parameters = matrices()
    optimizer = optimizer_of("AdamW8bit", parameters)
    stepped(optimizer, parameters, range(1))
    assert optimizer.state[parameters[0]]["state1"].dtype == torch.uint8


# -- learning rates -------------------------------------------------------------------------------------------------


def test_each_group_keeps_its_own_peak() -> None:
    first, second = matrices()
    optimizer = make_optimizer("AdamW", [{"params": [first], "lr": 0.01}, {"params": [second], "lr": 0.16}])
    assert set_learning_rate(optimizer, 0.5) == 0.005
    assert set_learning_rate(optimizer, 0.25) == 0.0025
    assert [group["lr"] for group in optimizer.param_groups] == [0.0025, 0.04]


@pytest.mark.parametrize("name", ["Prodigy", "ProdigyPlusScheduleFree"])
def test_the_rate_is_what_the_optimizer_found_times_ours(name: str) -> None:
    parameters = matrices()
    optimizer = optimizer_of(name, parameters)
    assert set_learning_rate(optimizer, 0.5) == 0.5 * 1e-4  # d0
    stepped(optimizer, parameters, range(5))
    found = optimizer.param_groups[0]["d"]
    assert found > 1e-4
    assert set_learning_rate(optimizer, 0.5) == 0.5 * found


def test_prodigy_moves_by_the_rate_that_is_recorded() -> None:
    """Its first step is Adam's without bias correction: rate * (1 - beta1) / sqrt(1 - beta2) for each number."""
    [parameter] = parameters = [nn.Parameter(torch.zeros(4, 8))]
    optimizer = optimizer_of("Prodigy", parameters)
    rate = set_learning_rate(optimizer, 1.0)
    parameter.grad = torch.full_like(parameter, 3.0)
    optimizer.step()
    expected = torch.full_like(parameter, -rate * 0.1 / math.sqrt(0.001))
    torch.testing.assert_close(parameter.detach(), expected, rtol=1e-3, atol=0)


def test_both_matrices_of_a_lora_get_one_rate_from_prodigy() -> None:
    """They are two groups here, and one elsewhere."""
    ours, theirs = matrices(), matrices()
    stepped(optimizer_of("ProdigyPlusScheduleFree", ours), ours)
    one_group = make_optimizer("ProdigyPlusScheduleFree", [{"params": theirs, "lr": 1.0}], {"d0": 1e-4})
    stepped(one_group, theirs)
    assert one_group.param_groups[0]["d"] > 1e-4
    assert all(map(torch.equal, ours, theirs))


# -- messages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["AdamW", "AdamW8bit", "Muon", "CAME"])
def test_an_unknown_argument_is_named_with_its_neighbours(name: OptimizerName) -> None:
    with pytest.raises(UserError, match=r"train\.optimizer_args\.weight_dacay.*did you mean weight_decay") as caught:
        make_optimizer(name, [{"params": matrices(), "lr": 0.01}], {"weight_dacay": 0.1})
    assert "weight_decay" in caught.value.hint
    assert "kwargs" not in caught.value.hint


@pytest.mark.parametrize("args", [{"lr": 1.0}, {"params": 1}, {"betas": (2.0, 0.9)}, {"betas": 0.9}])
def test_arguments_that_are_not_the_users_or_make_no_sense_are_refused(args: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="optimizer_args"):
        make_optimizer("AdamW", [{"params": matrices(), "lr": 0.01}], args)


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("Adafactor", {"relative_step": True}, r"relative_step: train\.learning_rate and train\.lr_scheduler set"),
        ("Adafactor", {"warmup_init": True}, r"warmup_init: train\.learning_rate and"),
        ("AdamWScheduleFree", {"warmup_steps": 10}, r"warmup_steps: train\.lr_warmup_steps does the same"),
        ("AdEMAMix", {"optim_bits": 8}, "optim_bits: hv15 sets it itself"),
    ],
)
def test_what_a_setting_does_is_no_argument(name: str, args: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_optimizer(name, [{"params": matrices(), "lr": 0.01}], args)


def test_what_packages_print_is_no_output(capsys: pytest.CaptureFixture[str]) -> None:
    optimizer_of("Prodigy", matrices(), weight_decay=0.1)
    assert capsys.readouterr().out == ""


def test_a_missing_bitsandbytes_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "bitsandbytes"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as Python has it: its import fails
    with pytest.raises(UserError, match=r"AdamW8bit: bitsandbytes cannot be loaded: ") as caught:
        make_optimizer("AdamW8bit", [{"params": matrices(), "lr": 0.01}])
    assert "AdamW" in caught.value.hint


@pytest.mark.parametrize("name", ["CAME", "Prodigy", "ProdigyPlusScheduleFree", "AdamWScheduleFree"])
def test_a_missing_package_names_the_extra(name: OptimizerName, monkeypatch: pytest.MonkeyPatch) -> None:
    package = CLASSES[name].partition(".")[0]
    for module in [module for module in sys.modules if module.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackage, match=f"{name}: {package} cannot be loaded: ") as caught:
        optimizer_class(name)
    assert caught.value.hint.startswith("pip install 'hv15[optimizers]'")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("torch.optm.AdamW", "torch.optm cannot be imported: No module named"),
        ("torch.optim.AdamWX", "torch.optim has no optimizer class AdamWX"),
        ("torch.nn.Linear", "torch.nn has no optimizer class Linear"),
        ("torch.optim.lr_scheduler.LambdaLR", "has no optimizer class"),
        ("no_such_package.Adam", "no_such_package is not an installed package"),
        ("os.path.Adam", "os is not an installed package"),
    ],
)
def test_a_path_that_leads_to_no_optimizer(path: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        optimizer_class(path)
    assert caught.value.hint


def test_a_project_brings_no_code_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in the working folder is not installed."""
    (tmp_path / "evil.py").write_text("raise SystemExit('the code ran')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingPackage, match="evil is not an installed package"):
        optimizer_class("evil.Adam")


# -- the check beforehand -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSES)
def test_every_optimizer_passes_its_check(name: OptimizerName) -> None:
    check_optimizer(TrainSettings(optimizer_type=name))


class Forgetful(torch.optim.SGD):
    """Keeps a number outside its state."""

    steps = 0

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.steps += 1
        self.param_groups[0]["lr"] *= self.steps
        super().step(closure)


class Unreadable(torch.optim.SGD):
    """Keeps an object of a class of its own."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)
        self.param_groups[0]["kept"] = Path()


class Demanding(torch.optim.SGD):
    """Asks for a closure."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        raise RuntimeError("needs a closure")


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (Forgetful, "does not resume from its saved state as if it had not stopped"),
        (Unreadable, "cannot be used: Weights only load failed"),
        (Demanding, "cannot be used: needs a closure"),
    ],
)
def test_a_class_that_cannot_stop_and_go_on_is_refused(
    cls: type[torch.optim.Optimizer], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizer_packages, "_installed_packages", lambda: {"tests"})
    with pytest.raises(UserError, match=rf"train\.optimizer_type: .*{words}"):
        check_optimizer(TrainSettings(optimizer_type=f"{cls.__module__}.{cls.__name__}"))


def test_norms_are_not_limited_behind_an_average() -> None:
    settings = TrainSettings(optimizer_type="pytorch_optimizer.ScheduleFreeAdamW", scale_weight_norms=1)
    with pytest.raises(UserError, match=r"train\.scale_weight_norms: cannot be used with"):
        check_optimizer(settings)
