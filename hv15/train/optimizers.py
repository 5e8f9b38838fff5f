"""The optimizers for LoRA training: AdamW, AdamW with 8-bit state, Muon."""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence

import torch

from hv15.bitsandbytes import bitsandbytes
from hv15.config.training.optimizer import OptimizerType, OptimizerValue
from hv15.errors import UserError

# Differences from the classes' own defaults. Muon is as in the model's official training: the update is scaled by
# 0.2*sqrt(max(sides)), so that learning rates are comparable to AdamW's.
DEFAULTS: dict[OptimizerType, dict[str, object]] = {
    "AdamW": {"fused": False},  # the fused kernel sums in another order on some devices
    "AdamW8bit": {},
    "Muon": {"weight_decay": 0.01, "adjust_lr_fn": "match_rms_adamw"},
}
# Arguments that hv15 sets itself, or that have no effect.
RESERVED = {"self", "params", "lr", "fused", "differentiable", "capturable", "maximize", "optim_bits"}


def make_optimizer(
    name: OptimizerType, groups: Sequence[Mapping[str, object]], args: Mapping[str, OptimizerValue] | None = None
) -> torch.optim.Optimizer:
    """Make an optimizer for parameter groups with their own `lr`, which is kept as the peak rate in `initial_lr`.

    Args:
        groups: as torch expects them: {"params": [...], "lr": ...}. All LoRA weights are matrices, as Muon requires.
        args: `train.optimizer_args`, further arguments of the class, such as weight_decay or betas.

    Raises:
        UserError: the class does not have or does not accept an argument, or bitsandbytes is missing.
    """
    # Each class has its own arguments.
    build: Callable[..., torch.optim.Optimizer] = optimizer_class(name)  # type: ignore[explicit-any]  # see above
    checked = _checked_args(name, optimizer_class(name), args or {})
    try:
        optimizer = build([{**group, "initial_lr": group["lr"]} for group in groups], **{**DEFAULTS[name], **checked})
    except (TypeError, ValueError, IndexError) as error:
        raise _refused(name, args or {}, error) from error
    return optimizer


def _refused(name: OptimizerType, args: Mapping[str, OptimizerValue], error: Exception) -> UserError:
    return UserError(
        f"train.optimizer_args: {name} does not accept {dict(args)}: {error}",
        hint="write them as in torch's documentation, e.g. {weight_decay: 0.01, betas: [0.9, 0.99]}",
    )


def check_optimizer(name: OptimizerType, args: Mapping[str, OptimizerValue]) -> None:
    """Build an optimizer for one small matrix and do a step, because only a step refuses some arguments.

    Raises:
        UserError: as `make_optimizer`, or the step fails.
    """
    matrix = torch.nn.Parameter(torch.zeros(4, 8))
    optimizer = make_optimizer(name, [{"params": [matrix], "lr": 1e-4}], args)
    matrix.grad = torch.ones_like(matrix)
    try:
        with warnings.catch_warnings(action="ignore"):
            optimizer.step()
    except Exception as error:  # whatever the class makes of a wrong type, or of too few numbers
        raise _refused(name, args, error) from error


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Set each group's rate to `factor` times its peak rate; return the first group's rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    return float(optimizer.param_groups[0]["lr"])


def optimizer_class(name: OptimizerType) -> type[torch.optim.Optimizer]:
    """Return the class for a value of `train.optimizer_type`.

    Raises:
        UserError: bitsandbytes is missing, or cannot be loaded.
    """
    if name == "AdamW":
        return torch.optim.AdamW
    if name == "Muon":
        return torch.optim.Muon
    try:
        adamw: type[torch.optim.Optimizer] = bitsandbytes("optim").AdamW8bit
        return adamw
    except (ImportError, OSError, RuntimeError) as error:
        raise UserError(
            f"train.optimizer_type AdamW8bit: bitsandbytes cannot be loaded: {error}",
            hint="reinstall bitsandbytes for this machine, or set train.optimizer_type to AdamW (more memory)",
        ) from error


def _checked_args(name: str, cls: type, args: Mapping[str, OptimizerValue]) -> dict[str, OptimizerValue]:
    parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]  # of exactly this class
    allowed = sorted(set(parameters) - RESERVED)
    for key, value in args.items():
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
