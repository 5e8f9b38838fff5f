"""Where what belongs to a user, and not to a project, is kept: by the XDG base directory standard."""

from __future__ import annotations

import os
from pathlib import Path


def config_folder() -> Path | None:
    """Return the folder of hv15's settings of this user, which need not exist; None if the user has no home."""
    return _folder("XDG_CONFIG_HOME", ".config")


def state_folder() -> Path | None:
    """Return the folder of what hv15 remembers for this user, which need not exist; None if the user has no home."""
    return _folder("XDG_STATE_HOME", ".local/state")


def _folder(variable: str, in_home: str) -> Path | None:
    base = Path(os.environ.get(variable, ""))
    if base.is_absolute():  # the standard says that another value is to be ignored
        return base / "hv15"
    try:
        return Path.home() / in_home / "hv15"
    except RuntimeError:
        return None
