"""hv15 needs Linux, for file locks, signals and /proc, and says so at once; and what processor it runs on."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from hv15.errors import UserError

_NAMES = {"win32": "Windows", "cygwin": "Windows", "darwin": "macOS"}


def require_linux() -> None:
    """Raise a UserError on any other system. Windows' WSL2 is Linux."""
    if sys.platform != "linux":
        where = "inside WSL2" if _NAMES.get(sys.platform) == "Windows" else "on a Linux machine or in a container"
        raise UserError(
            f"hv15 needs Linux, and this is {_NAMES.get(sys.platform, sys.platform)}", hint=f"run it {where}"
        )


def processor_name() -> str:
    """Return the name of this machine's processor, such as "AMD EPYC 9554 64-Core Processor", or else its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.machine()
