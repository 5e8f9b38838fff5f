"""The state of an optimizer as it is saved, and its exact restoration; and the weights that an average stands for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

OptimizerState = dict[str, Any]  # type: ignore[explicit-any]  # as torch's optimizers take and return it


def state_of(optimizer: torch.optim.Optimizer) -> OptimizerState:
    """Return the state for `torch.save`, with plain tensors: attributes of theirs, such as bitsandbytes' pages, are no
    content. It shares their memory."""
    return {name: _plain(value) for name, value in optimizer.state_dict().items()}


def restore_state(optimizer: torch.optim.Optimizer, state: OptimizerState) -> None:
    """Give an optimizer of the same class and parameters a state that was saved with `state_of`, to the bit.

    torch turns each tensor of a state into the parameter's number format; what the optimizer keeps in another one, such
    as bfloat16, gets its own back. State in pages is put into pages again.

    Raises:
        ValueError: the state is that of other parameters.
    """
    optimizer.load_state_dict(state)
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    indices = [index for group in state["param_groups"] for index in group["params"]]
    for index, parameter in zip(indices, parameters, strict=True):
        kept = optimizer.state[parameter]
        for name, saved in state["state"].get(index, {}).items():
            restored = kept.get(name)
            if isinstance(saved, Tensor) and isinstance(restored, Tensor) and restored.dtype != saved.dtype:
                kept[name] = saved.to(restored.device)
        if getattr(optimizer, "is_paged", False):
            _put_into_pages(optimizer, parameter, kept)


@contextmanager
def averaged(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """While active, the parameters are what the training has learned so far: of an optimizer that averages them
    ("schedule-free", Defazio et al. 2024), the average.

    Afterwards they are to the bit what they were, so a look at the LoRA does not change its training. Of other
    optimizers they are always what has been learned. Keeps a copy in the machine's memory.
    """
    if not averages(optimizer):
        yield
        return
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    before = [parameter.detach().to("cpu", copy=True) for parameter in parameters]
    optimizer.eval()  # type: ignore[attr-defined]  # see `averages`
    try:
        yield
    finally:
        optimizer.train()  # type: ignore[attr-defined]  # see `averages`
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)  # its own way back rounds


def averages(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer has two modes: one to train in, and one in which the parameters are their average."""
    return callable(getattr(optimizer, "eval", None)) and callable(getattr(optimizer, "train", None))


def _plain(value: object) -> object:
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return tuple(_plain(each) for each in value) if isinstance(value, tuple) else value


def _put_into_pages(optimizer: torch.optim.Optimizer, parameter: Tensor, kept: dict[str, Tensor]) -> None:
    """bitsandbytes loads paged state into the GPU's own memory, where it may not fit."""
    for name in ("state1", "state2"):
        value = kept.get(name)
        if value is not None and value.shape == parameter.shape:
            pages = optimizer.get_state_buffer(parameter, dtype=value.dtype)  # type: ignore[attr-defined]  # bitsandbytes' own
            kept[name] = pages.copy_(value)
