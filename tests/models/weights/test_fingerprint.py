from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hv15.errors import UserError
from hv15.models.weights import fingerprint
from hv15.models.weights.fingerprint import FingerprintCache, model_fingerprint


def model(path: Path, value: float = 1.0, **metadata: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"weight": torch.full((4, 4), value)}, path, metadata=metadata or None)
    return path


def test_equal_content_gives_equal_fingerprints_wherever_it_is(tmp_path: Path):
    first = model_fingerprint(model(tmp_path / "a.safetensors"))
    assert model_fingerprint(model(tmp_path / "elsewhere" / "b.safetensors")) == first
    assert model_fingerprint(model(tmp_path / "a.safetensors", 2.0)) != first
    assert model_fingerprint(model(tmp_path / "a.safetensors", note="x")) != first


def test_large_files_are_read_in_blocks(tmp_path: Path):
    """A sparse file of 20 GB takes no time; its first and last bytes count."""
    path = tmp_path / "weights.dat"
    with path.open("wb") as file:
        file.truncate(20 * 10**9)
    first = model_fingerprint(path)
    for place in (0, 20 * 10**9 - 1):
        with path.open("r+b") as file:
            file.seek(place)
            file.write(b"x")
        second = model_fingerprint(path)
        assert second != first
        first = second


def test_folder_counts_names_and_content_but_no_notes(tmp_path: Path):
    model(tmp_path / "m" / "a.safetensors")
    (tmp_path / "m" / "config.json").write_text("{}")
    first = model_fingerprint(tmp_path / "m")
    (tmp_path / "m" / "README.md").write_text("words")
    (tmp_path / "m" / ".cache").mkdir()
    (tmp_path / "m" / ".cache" / "lock").write_text("x")
    assert model_fingerprint(tmp_path / "m") == first
    (tmp_path / "m" / "config.json").rename(tmp_path / "m" / "other.json")
    assert model_fingerprint(tmp_path / "m") != first


def test_cache_reads_a_file_again_only_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    read: list[Path] = []
    compute = fingerprint._file_fingerprint
    monkeypatch.setattr(fingerprint, "_file_fingerprint", lambda file: read.append(file) or compute(file))
    path, store = model(tmp_path / "a.safetensors"), tmp_path / "cache.json"
    cache = FingerprintCache(store)
    first = model_fingerprint(path, cache)
    cache.save()
    assert model_fingerprint(path, FingerprintCache(store)) == first
    assert len(read) == 1
    os.utime(path, ns=(1, 1))
    assert model_fingerprint(path, FingerprintCache(store)) == first
    assert len(read) == 2
    for broken in ("{", "[1]", '{"a": 1}', f'{{"{path.resolve()}": [1, 2]}}'):
        store.write_text(broken)
        assert model_fingerprint(path, FingerprintCache(store)) == first
    assert len(read) == 6


def test_missing_empty_and_damaged_are_user_errors(tmp_path: Path):
    with pytest.raises(UserError, match="no such file or folder"):
        model_fingerprint(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="an empty folder"):
        model_fingerprint(tmp_path / "empty")
    path = model(tmp_path / "a.safetensors")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UserError, match="truncated"):
        model_fingerprint(path)


def test_two_projects_add_to_one_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in "ab":
        (tmp_path / name).write_text(name)
    first, second = (FingerprintCache(tmp_path / "cache.json") for _ in range(2))
    first.fingerprint(tmp_path / "a")
    second.fingerprint(tmp_path / "b")
    first.save()
    second.save()
    monkeypatch.setattr(fingerprint, "_file_fingerprint", lambda file: pytest.fail("read again"))
    assert len({FingerprintCache(tmp_path / "cache.json").fingerprint(tmp_path / name) for name in "ab"}) == 2


def test_a_cache_that_cannot_be_written_costs_time_alone(tmp_path: Path):
    """A store may be there to be read only. (A file in the place of the folder: root may write into any folder.)"""
    (tmp_path / "store").write_text("no folder")
    path, cache = model(tmp_path / "a.safetensors"), FingerprintCache(tmp_path / "store" / "cache.json")
    assert model_fingerprint(path, cache) == model_fingerprint(path)
    cache.save()
