"""hv15 needs Linux, for file locks, signals and /proc, and says so at once."""

from __future__ import annotations

import sys

from hv15.errors import UserError

_NAMES = {"win32": "Windows", "cygwin": "Windows", "darwin": "macOS"}


def require_linux() -> None:
    """Raise a UserError on any other system. Windows' WSL2 is Linux."""
    if sys.platform != "linux":
        where = "inside WSL2" if _NAMES.get(sys.platform) == "Windows" else "on a Linux machine or in a container"
        raise UserError(
            f"hv15 needs Linux, and this is {_NAMES.get(sys.platform, sys.platform)}", hint=f"run it {where}"
        )
