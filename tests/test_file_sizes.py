"""What files take, while others may remove them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hv15.file_sizes import bytes_of


def test_a_file_a_folder_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a.safetensors").write_bytes(b"12345")
    (tmp_path / "b.json").write_bytes(b"123")
    assert bytes_of(tmp_path / "b.json") == 3
    assert bytes_of(tmp_path) == 8
    assert bytes_of(tmp_path, "*.safetensors") == 5
    assert bytes_of(tmp_path / "nowhere") == 0


def test_what_is_listed_and_then_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training removes old copies and old states."""
    for name in ("new", "old", "state/step-1/lora"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"12")
    real = os.walk

    def walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        for inner, folders, names in real(folder):
            (tmp_path / "old").unlink(missing_ok=True)
            shutil.rmtree(tmp_path / "state" / "step-1", ignore_errors=True)
            yield inner, folders, names

    monkeypatch.setattr(os, "walk", walk)
    assert bytes_of(tmp_path) == 2
