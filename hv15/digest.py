"""Names for content: a digest is equal exactly when the described thing is equal."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: object) -> str:
    """Return the sha256 (hex) of a value's canonical JSON: sorted keys, no spaces, UTF-8, Python's floats."""
    return hashlib.sha256(_CANONICAL.encode(value).encode()).hexdigest()


def short(value: object) -> str:
    """Return the first 16 hex digits of `digest`, for folder names."""
    return digest(value)[:16]


def file_sha256(path: Path) -> str:
    """Return the sha256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
