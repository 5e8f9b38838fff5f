"""Paths in remote storage, such as s3://bucket/models/vae.safetensors, and where their copies are on this machine.

A file or folder is copied into the cache before anything is planned, because a plan needs its content (`hv15 fetch`).
From then on it is a file like any other.
"""

from __future__ import annotations

import re
from pathlib import Path

NOT_FETCHED = "`hv15 fetch` copies it; a run does so by itself"
_S3 = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,62})/(?P<key>.+)")


def is_remote(path: str) -> bool:
    """Whether a setting's path is one in remote storage."""
    return path.startswith("s3://")


def check_remote(url: str) -> str:
    """Return the path if a copy can have a place for it.

    Raises:
        ValueError: it is not of the form s3://BUCKET/NAME, or its name cannot be that of a file here.
    """
    match = _S3.fullmatch(url)
    if match is None:
        raise ValueError(f"found '{url}', expected s3://BUCKET/NAME")
    parts = match["key"].rstrip("/").split("/")
    if not all(parts) or {".", ".."} & set(parts) or re.search(r"[{}\0\n\\]", match["key"]):
        found = f"found '{url}': a name with empty parts, . or .., braces or backslashes"
        raise ValueError(f"{found} cannot be copied here")
    return url


def copy_of(url: str, folder: Path) -> Path:
    """Return where the copy of a remote file or folder is.

    Args:
        folder: of all copies (`hv15.records.cache_paths.CachePaths.remote`).

    Raises:
        ValueError: as `check_remote`.
    """
    return folder / check_remote(url).removeprefix("s3://").rstrip("/")
