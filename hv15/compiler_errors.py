"""Errors of torch.compile in plain words. Loads no torch."""

from __future__ import annotations

import logging
import sys

from hv15.errors import UserError

_HINT = (
    "set `compile` to false in the section of this job, or install what it names, such as a C++ compiler; "
    "compile_fullgraph stops where a part cannot be compiled"
)

log = logging.getLogger(__name__)


def of_the_compiler(error: BaseException) -> UserError | None:
    """Return the error for a person, if torch.compile raised it; None if it is any other."""
    known = sys.modules.get("torch._dynamo.exc")
    if known is None or not isinstance(error, known.TorchDynamoException):
        return None
    log.debug("torch.compile", exc_info=error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.endswith("raised:")]
    return UserError(f"torch.compile failed: {lines[0] if lines else type(error).__name__:.300}", hint=_HINT)
