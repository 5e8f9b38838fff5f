"""`nn.Module` as type checkers should see our networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn


class Module(nn.Module):
    """A module whose attributes are those that its class has: a misspelt one is an error of the type checker.

    torch declares that a module may have any attribute, because it looks up parameters, buffers and submodules by name.
    Ours are assigned in `__init__`, or declared in the class if they are registered by name.
    """

    if TYPE_CHECKING:
        __getattr__: None  # type: ignore[assignment, misc]  # takes back what torch declares
