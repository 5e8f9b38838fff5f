"""Functions of the rules that tell Snakemake their parameters, which it otherwise inspects anew for each job."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar

Function = TypeVar("Function", bound=Callable[..., object])  # type: ignore[explicit-any]  # of any parameters


def with_known_parameters(function: Function) -> Function:
    """Return the function, with what `inspect.signature` says of it kept where that looks first."""
    setattr(function, "__signature__", inspect.signature(function))  # noqa: B010 (no attribute to a type checker)
    return function
