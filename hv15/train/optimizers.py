"""Makes the optimizer of a training from its settings, and checks it beforehand."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import io
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence

import torch

from hv15.config.training.optimizer import OptimizerSettings, OptimizerType, OptimizerValue
from hv15.errors import UserError
from hv15.train.optimizer_classes import DEFAULTS, optimizer_class, reserved
from hv15.train.optimizer_state import averages, restore_state, state_of

log = logging.getLogger(__name__)


def make_optimizer(
    name: OptimizerType, groups: Sequence[Mapping[str, object]], args: Mapping[str, OptimizerValue] | None = None
) -> torch.optim.Optimizer:
    """Make an optimizer for parameter groups with their own `lr`, which is kept as the peak rate in `initial_lr`.

    Args:
        groups: as torch expects them: {"params": [...], "lr": ...}. All LoRA weights are matrices, as Muon requires.
        args: `train.optimizer_args`, further arguments of the class, such as weight_decay or betas.

    Raises:
        UserError: the class does not have or does not accept an argument, or cannot be used or loaded.
    """
    # Each class has its own arguments.
    build: Callable[..., torch.optim.Optimizer] = optimizer_class(name)  # type: ignore[explicit-any]  # see above
    checked = _checked_args(name, optimizer_class(name), args or {})
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):  # some packages print what they do
            optimizer = build(
                [{**group, "initial_lr": group["lr"]} for group in groups],
                lr=groups[0]["lr"],
                **{**DEFAULTS.get(name, {}), **checked},
            )
    except Exception as error:  # whatever the class makes of its arguments
        raise _refused(name, args or {}, error) from error
    for line in said.getvalue().splitlines():
        log.info("%s: %s", name, line)
    if averages(optimizer):
        optimizer.train()  # type: ignore[attr-defined]  # it has both modes
    return optimizer


def check_optimizer(options: OptimizerSettings) -> None:
    """Train two small matrices for some steps, stop, and resume from the saved state: some classes refuse only then.

    Raises:
        UserError: as `make_optimizer`; or a step fails, the state cannot be saved, or the resumed steps give other
            numbers.
    """
    name, args = options.optimizer_type, options.optimizer_args
    rates = (options.learning_rate, options.learning_rate * (options.loraplus_lr_ratio or 1))
    matrices = [torch.linspace(-1, 1, 32).view(4, 8), torch.zeros(16, 4)]

    def made() -> tuple[list[torch.nn.Parameter], torch.optim.Optimizer]:
        parameters = [torch.nn.Parameter(each.clone()) for each in matrices]
        groups = [{"params": [each], "lr": rate} for each, rate in zip(parameters, rates, strict=True)]
        return parameters, make_optimizer(name, groups, args)

    parameters, optimizer = made()
    refuse_norm_limit(options, optimizer)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            _steps(parameters, optimizer, range(3))
            file = io.BytesIO()
            torch.save(state_of(optimizer), file)
            again, resumed = made()
            for parameter, value in zip(again, parameters, strict=True):
                parameter.data.copy_(value.data)
            file.seek(0)
            restore_state(resumed, torch.load(file, weights_only=True))
            _steps(parameters, optimizer, range(3, 5))
            _steps(again, resumed, range(3, 5))
    except Exception as error:  # whatever the class makes of a wrong type, or of too few numbers
        raise _refused(name, args, error) from error
    if not all(map(torch.equal, parameters, again)):
        raise UserError(
            f"train.optimizer_type: a training with {name} does not resume from its saved state as if it had not "
            "stopped",
            hint="use another optimizer: this one keeps something outside its state, or draws random numbers",
        )


def refuse_norm_limit(options: OptimizerSettings, optimizer: torch.optim.Optimizer) -> None:
    """Check that norms can be limited if `scale_weight_norms` asks for it.

    Raises:
        UserError: the optimizer averages the weights, and its average would not be limited.
    """
    if options.scale_weight_norms is not None and averages(optimizer):
        raise UserError(
            f"train.scale_weight_norms: cannot be used with {options.optimizer_type}, which averages the weights",
            hint="remove it, or use another train.optimizer_type",
        )


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Set each group's rate to `factor` times its peak rate.

    Returns:
        The rate with which the first group is updated next: where the optimizer finds a rate itself (`d` of Prodigy and
        its relatives), it is the product of both.
    """
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    first = optimizer.param_groups[0]
    found = first.get("d", 1.0)
    return float(first["lr"]) * (found if isinstance(found, int | float) else 1.0)


def _steps(parameters: Sequence[torch.nn.Parameter], optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        for parameter in parameters:
            wave = torch.arange(parameter.numel(), dtype=torch.float32).view_as(parameter)
            parameter.grad = torch.cos(wave * (1 + step)) + 0.5
        optimizer.step()


def _refused(name: OptimizerType, args: Mapping[str, OptimizerValue], error: Exception) -> UserError:
    if isinstance(error, UserError):
        return error
    if not args:
        return UserError(
            f"train.optimizer_type: {name} cannot be used: {error}",
            hint="use a class that needs nothing but parameters and gradients, and give it what it needs in "
            "train.optimizer_args",
        )
    return UserError(
        f"train.optimizer_args: {name} does not accept {dict(args)}: {error}",
        hint="write them as in the class's documentation, e.g. {weight_decay: 0.01, betas: [0.9, 0.99]}",
    )


def _checked_args(name: str, cls: type, args: Mapping[str, OptimizerValue]) -> dict[str, OptimizerValue]:
    parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]  # of exactly this class
    named = {key for key, each in parameters.items() if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)}
    not_the_users = reserved(name)
    allowed = sorted(named - not_the_users.keys())
    for key, value in args.items():
        if key in named and key in not_the_users:
            raise UserError(f"train.optimizer_args.{key}: {not_the_users[key]}", hint="remove it")
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, n=1)
            raise UserError(
                f"train.optimizer_args.{key}: {name} has no such argument"
                + (f"; did you mean {near[0]}" if near else ""),
                hint=f"use one of its arguments: {', '.join(allowed)}",
            )
        if isinstance(value, str) and isinstance(parameters[key].default, int | float | tuple):
            raise UserError(
                f"train.optimizer_args.{key}: found '{value}', expected a number",
                hint=f"use a number, or remove it for {name}'s default",
            )
    return {key: tuple(value) if isinstance(value, list) else value for key, value in args.items()}
