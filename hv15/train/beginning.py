"""The beginning of a training that continues another: what it takes from its origin (`hv15.train.origin`)."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path

import torch

from hv15.errors import UserError
from hv15.lora import convert, read_lora
from hv15.train.optimizer_state import OptimizerState
from hv15.train.optimizer_step import OptimizerStep
from hv15.train.origin import LORA, OTHER_OPTIMIZER, Origin, refuse_other_optimizer
from hv15.train.state import Position, SavedState, load_state


def load_origin(
    origin: Origin, kept: Path, optimizer_step: OptimizerStep, *, optimizer_type: str, batches_per_step: int
) -> SavedState:
    """Return what a training starts from, in the form of a state of its own.

    Args:
        kept: the origin's folder.
        optimizer_step: of the new training, with its settings.
        optimizer_type: the setting, likewise.

    Raises:
        UserError: the origin is damaged, or does not fit the network or the optimizer.
    """
    if origin.kind == "lora":
        weights, _ = read_lora(kept / LORA)
        position = Position(0, 0.0, 0, "", batches_per_step, between_due=True)
        begin = SavedState(position, convert(weights, to="kohya")[0], {})
    else:
        begin = _load_state(kept)
        position = replace(begin.position, metrics_offset=0, batches_per_step=batches_per_step, between_due=False)
        position = replace(position, skipped_steps=0, bad_in_a_row=0, standing=None)  # of its own clips and settings
        begin = replace(begin, position=position)
    try:
        optimizer_step.network.load_state_dict(begin.lora)
    except UserError as error:
        raise UserError(
            f"train.continue_from: {error.message.removeprefix('network_weights: ')}",
            hint="use the settings of the network with which it was trained",
        ) from error
    if origin.reset_optimizer or origin.kind == "lora":
        return replace(begin, optimizer={})
    refuse_other_optimizer(origin, kept, optimizer_type)
    return replace(begin, optimizer=with_settings_of(optimizer_step.optimizer, begin.optimizer))


def with_settings_of(optimizer: torch.optim.Optimizer, state: OptimizerState) -> OptimizerState:
    """Return a state with the settings of another optimizer of its class, such as rates: what was learned stays.

    Raises:
        UserError: it is not the state of such an optimizer, or of other parameters.
    """
    settings = {"lr", "initial_lr", *inspect.signature(type(optimizer).__init__).parameters}
    groups, wanted = state["param_groups"], optimizer.param_groups
    sizes = [[len(group["params"]) for group in each] for each in (groups, wanted)]
    if sizes[0] != sizes[1] or any(not new.keys() <= old.keys() for old, new in zip(groups, wanted, strict=True)):
        raise UserError(
            "train.continue_from: the state is one of another optimizer than that of train.optimizer_type",
            hint=OTHER_OPTIMIZER,
        )
    merged = [
        old | {name: value for name, value in new.items() if name in settings and name != "params"}
        for old, new in zip(groups, wanted, strict=True)
    ]
    return {**state, "param_groups": merged}


def _load_state(kept: Path) -> SavedState:
    try:
        return load_state(kept)
    except Exception as error:  # whatever torch and safetensors raise
        raise UserError.at(
            kept,
            f"cannot be used: {error}",
            hint="remove it and run the same command again: it is taken from the other training's folder again",
        ) from error
