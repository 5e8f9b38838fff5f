"""Names for content: a digest is equal exactly when the described thing is equal."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_PART = 1 << 18


def canonical(value: object) -> str:
    """Return a value's canonical JSON: sorted keys, no spaces, Python's floats."""
    return _CANONICAL.encode(value)


def text_digest(text: str) -> str:
    """Return the sha256 (hex) of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest(value: object) -> str:
    """Return the sha256 (hex) of a value's canonical JSON in UTF-8."""
    return text_digest(canonical(value))


def short(value: object) -> str:
    """Return the first 16 hex digits of `digest`, for folder names."""
    return digest(value)[:16]


def file_sha256(path: str | Path) -> str:
    """Return the sha256 (hex) of a file's bytes.

    hashlib.file_digest takes three times as long for a small file, because of its buffers, and there may be 100,000.
    """
    hasher = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (as above)
        while part := file.read(_PART):
            hasher.update(part)
    return hasher.hexdigest()
