"""Functions of the rules that tell Snakemake their parameters, which it otherwise inspects anew for each job."""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import TypeVar, cast

Function = TypeVar("Function")


def with_known_parameters(function: Function) -> Function:
    """Return the function, with what `inspect.signature` says of it kept where that looks first."""
    signature = inspect.signature(cast("FunctionType", function))
    setattr(function, "__signature__", signature)  # noqa: B010 (no attribute to a type checker)
    return function
