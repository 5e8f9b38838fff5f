"""A base class for networks, which lets type checkers find misspelt attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn


class Module(nn.Module):
    """A module for which type checkers know only the attributes of its class, so that a misspelt one is a type error.

    torch declares that a module may have any attribute, because it looks up parameters, buffers and submodules by name.
    Here all are assigned in `__init__`, or declared in the class if they are registered by name.
    """

    if TYPE_CHECKING:
        __getattr__: None  # type: ignore[assignment, misc]  # undoes torch's declaration
