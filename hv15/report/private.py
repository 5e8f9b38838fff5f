"""What a page tells about this machine: file names, but not where they are, unless everything is to be told."""

from __future__ import annotations

from pathlib import PurePosixPath

from hv15.records.json_values import Json

ELLIPSIS = "…/"
"""Stands for folders that are not told."""


def without_folders(value: Json) -> Json:
    """Return a setting with the last part alone of each path that leads out of the project folder."""
    if isinstance(value, list):
        return [without_folders(each) for each in value]
    if isinstance(value, dict):
        return {name: without_folders(each) for name, each in value.items()}
    if not isinstance(value, str) or not _leads_out(value):
        return value
    return ELLIPSIS + PurePosixPath(value).name


def _leads_out(text: str) -> bool:
    return "\n" not in text and (text.startswith(("/", "~")) or ".." in PurePosixPath(text).parts)
