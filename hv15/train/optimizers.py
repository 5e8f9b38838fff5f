"""The optimizers of a LoRA training: AdamW, AdamW with 8-bit state, Muon."""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence

import torch

from hv15.bitsandbytes import bitsandbytes
from hv15.config.train import OptimizerType, OptimizerValue
from hv15.errors import UserError

# What differs from the classes' own defaults. Muon: as in the model's official training: the update is scaled by
# 0.2*sqrt(max(sides)), so that learning rates mean what they mean for AdamW.
DEFAULTS: dict[OptimizerType, dict[str, object]] = {
    "AdamW": {"fused": False},  # the fused kernel sums in another order on some devices
    "AdamW8bit": {},
    "Muon": {"weight_decay": 0.01, "adjust_lr_fn": "match_rms_adamw"},
}
# Ours to set, or without a meaning here.
RESERVED = {"self", "params", "lr", "fused", "differentiable", "capturable", "maximize", "optim_bits"}


def make_optimizer(
    name: OptimizerType, groups: Sequence[Mapping[str, object]], args: Mapping[str, OptimizerValue] | None = None
) -> torch.optim.Optimizer:
    """Build an optimizer over parameter groups that carry their own `lr`; the peak rate is kept as `initial_lr`.

    Args:
        groups: as torch takes them: {"params": [...], "lr": ...}. Muon takes matrices only, which all LoRA weights are.
        args: `train.optimizer_args`, further arguments of the class, such as weight_decay or betas.

    Raises:
        UserError: an argument that the class does not know or refuses; bitsandbytes missing.
    """
    # Each class has arguments of its own.
    build: Callable[..., torch.optim.Optimizer] = optimizer_class(name)  # type: ignore[explicit-any]
    checked = _checked_args(name, optimizer_class(name), args or {})
    try:
        optimizer = build([{**group, "initial_lr": group["lr"]} for group in groups], **{**DEFAULTS[name], **checked})
    except (TypeError, ValueError, IndexError) as error:
        raise _refused(name, args or {}, error) from error
    return optimizer


def _refused(name: OptimizerType, args: Mapping[str, OptimizerValue], error: Exception) -> UserError:
    return UserError(
        f"train.optimizer_args: {name} refuses {dict(args)}: {error}",
        hint="write them as torch's documentation does, e.g. {weight_decay: 0.01, betas: [0.9, 0.99]}",
    )


def check_optimizer(name: OptimizerType, args: Mapping[str, OptimizerValue]) -> None:
    """Build an optimizer over one small matrix and do a step: some arguments are refused by the step alone.

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
    """Set each group's rate to `factor` times its peak; return the first group's rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    return float(optimizer.param_groups[0]["lr"])


def optimizer_class(name: OptimizerType) -> type[torch.optim.Optimizer]:
    """Return the class behind a name of `train.optimizer_type`.

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
    parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]  # of this class, not of one below it
    allowed = sorted(set(parameters) - RESERVED)
    for key, value in args.items():
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, n=1)
            raise UserError(
                f"train.optimizer_args.{key}: {name} has no such argument"
                + (f"; did you mean {near[0]}" if near else ""),
                hint=f"{name} takes {', '.join(allowed)}",
            )
        if isinstance(value, str) and isinstance(parameters[key].default, int | float | tuple):
            raise UserError(
                f"train.optimizer_args.{key}: found '{value}', expected a number", hint=f"leave it out for {name}'s own"
            )
    return {key: tuple(value) if isinstance(value, list) else value for key, value in args.items()}
