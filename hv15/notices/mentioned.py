"""Whether anything says a word of notices. Where nothing does, a run loads no classes of settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hv15.records.json_values import Json
from hv15.user_folders import config_folder

SECTION = "notify"


def users_file() -> Path | None:
    """Return the file of the user's own settings, for all projects; None if the user has no home."""
    folder = config_folder()
    return None if folder is None else folder / "notify.yaml"


def are_mentioned(config: Path, overrides: Mapping[str, Json]) -> bool:
    """Whether notices may be asked for: no file is parsed, so it can be wrong about a yes, not about a no.

    Args:
        config: the project's config file.
        overrides: settings that override those of the file.
    """
    users = users_file()
    if SECTION in overrides or (users is not None and users.is_file()):
        return True
    try:
        text = config.read_bytes()
    except OSError:  # whoever reads the settings says it
        return True
    return SECTION.encode() in text or b"\\" in text  # an escape could hide it
