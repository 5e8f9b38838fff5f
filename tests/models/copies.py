"""Copies of a model in a third of the time of `copy.deepcopy`, which looks into every empty dictionary of hooks."""

from __future__ import annotations

from copy import deepcopy
from typing import TypeVar

from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)
EMPTY = {name for name, value in vars(nn.Module()).items() if value == {}} - {"_parameters", "_buffers", "_modules"}
"""The dictionaries of hooks."""


def copied(model: Model) -> Model:
    """The same model, without hooks, with tensors of its own."""
    twin: Model = object.__new__(type(model))
    for name, value in vars(model).items():
        if name in EMPTY:
            assert not value, f"{type(model).__name__} has {name}"
            vars(twin)[name] = value.copy()
        elif name == "_modules":
            vars(twin)[name] = {key: None if part is None else copied(part) for key, part in value.items()}
        elif name in ("_parameters", "_buffers"):
            vars(twin)[name] = {key: None if each is None else _own(each) for key, each in value.items()}
        else:
            vars(twin)[name] = value if isinstance(value, bool | int | str | None) else deepcopy(value)
    return twin


def _own(tensor: Tensor) -> Tensor:
    own = tensor.detach().clone()
    return nn.Parameter(own, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else own
