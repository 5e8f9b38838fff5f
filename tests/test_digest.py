"""Digests, against hashlib and json used plainly."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from hv15.digest import digest, file_sha256


@pytest.mark.parametrize("size", [0, 1, (1 << 18) - 1, 1 << 18, (1 << 18) + 1, 3 << 18])
def test_a_file_of_any_size(size: int, tmp_path: Path) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    path = tmp_path / "a.mp4"
    path.write_bytes(content[:size])
    expected = hashlib.sha256(content[:size]).hexdigest()
    assert file_sha256(path) == file_sha256(str(path)) == expected


def test_a_value_is_named_by_its_canonical_json() -> None:
    value = {"b": [1, 2.5, None], "a": "é"}
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert digest(value) == digest({"a": "é", "b": [1, 2.5, None]}) == hashlib.sha256(text.encode()).hexdigest()
