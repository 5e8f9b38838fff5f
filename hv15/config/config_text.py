"""The text of a config file, as it is edited: read and written byte by byte."""

from __future__ import annotations

import os
from pathlib import Path

from hv15.atomic import atomic_path
from hv15.config.yaml_file import read_yaml
from hv15.errors import UserError


def read_config_text(path: Path) -> str:
    """Return the text of a config file, with its line ends.

    Raises:
        UserError: it is missing, cannot be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        read_yaml(path)  # raises if something is wrong
        raise UserError.at(path, "cannot be read", hint="try again") from None


def write_config_text(path: Path, text: str) -> None:
    """Write a config file atomically; a link stays a link, and the file keeps its permissions.

    Raises:
        UserError: it is write-protected, or cannot be written.
    """
    target = path.resolve()
    mode = target.stat().st_mode if target.exists() else None
    if mode is not None and not os.access(target, os.W_OK):
        raise UserError.at(path, "is write-protected", hint="`chmod u+w` it, then save again")
    with atomic_path(target) as temporary:
        temporary.write_bytes(text.encode("utf-8", "replace"))
    if mode is not None:
        target.chmod(mode & 0o7777)
