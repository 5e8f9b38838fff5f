"""Imports the package bitsandbytes quietly, and only where it is used: it takes a second and looks for GPUs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType


def bitsandbytes(module: str) -> ModuleType:
    """Return a module of the package, such as "optim".

    Raises:
        ImportError, OSError, RuntimeError: it cannot be loaded.
    """
    name = f"bitsandbytes.{module}"
    if name not in sys.modules:
        with without_kernels():
            import_module(name)
    return sys.modules[name]


@contextmanager
def without_kernels() -> Iterator[None]:
    """While active, the package `kernels` cannot be imported, and bitsandbytes does not complain about it.

    On CPUs with bfloat16 units bitsandbytes asks that package for a compiled kernel from the Hub as soon as it is
    imported, and recommends installing it where it is missing. Nothing here uses that kernel (a product with a packed
    weight), so neither should happen.
    """
    log = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level, had, kernels = log.level, "kernels" in sys.modules, sys.modules.get("kernels")
    log.setLevel(logging.ERROR)
    sys.modules["kernels"] = None  # type: ignore[assignment]  # None makes the import fail
    try:
        yield
    finally:
        del sys.modules["kernels"]
        if had:
            sys.modules["kernels"] = kernels  # type: ignore[assignment]  # None if it was made to fail before
        log.setLevel(level)
