from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hv15.cache.store import BrokenItemError, Store
from hv15.errors import UserError

KEY = "ab" * 32


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, "latents", "0123456789abcdef")


def test_an_item_comes_back_as_it_was_written(store: Store) -> None:
    latents = torch.randn(32, 2, 4, 4).to(torch.bfloat16)
    store.write(KEY, {"latents": latents}, {"note": "x"})
    assert torch.equal(store.read(KEY)["latents"], latents)
    assert list(store.all_keys()) == [KEY]


def test_an_item_lies_where_the_contract_says(store: Store, tmp_path: Path) -> None:
    store.write(KEY, {"latents": torch.zeros(32, 1, 1, 1)}, {})
    assert store.path(KEY) == tmp_path / "store/latents/0123456789abcdef/ab" / f"{KEY}.safetensors"
    assert [path.name for path in store.path(KEY).parent.iterdir()] == [f"{KEY}.safetensors"]


def test_nan_is_never_stored(store: Store) -> None:
    with pytest.raises(UserError, match="NaN"):
        store.write(KEY, {"latents": torch.full((32, 1, 1, 1), float("nan"))}, {})
    assert not store.has(KEY)


@pytest.mark.parametrize("damage", ["missing", "truncated", "garbage", "empty", "nan", "axes", "unknown", "without"])
def test_a_damaged_item_is_named(store: Store, damage: str) -> None:
    path = store.path(KEY)
    path.parent.mkdir(parents=True)
    tensors = {
        "nan": {"latents": torch.full((32, 1, 1, 1), float("inf"))},
        "axes": {"latents": torch.zeros(32, 1)},
        "unknown": {"latents": torch.zeros(32, 1, 1, 1), "other": torch.zeros(1)},
        "without": {"vision": torch.zeros(729, 1152)},
    }.get(damage, {"latents": torch.zeros(32, 1, 1, 1)})
    if damage != "missing":
        save_file(tensors, path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    if damage in ("garbage", "empty"):
        path.write_bytes(b"" if damage == "empty" else b"not safetensors")
    with pytest.raises(BrokenItemError, match=KEY) as caught:
        store.read(KEY)
    assert "again" in caught.value.hint
    assert not store.has(KEY), "a damaged item is removed, so that the next plan asks for it"
    assert not store.is_sound(KEY)


def test_an_item_that_cannot_be_read_for_now_is_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(KEY, {"latents": torch.zeros(32, 1, 1, 1)}, {})

    def fail(path: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("safetensors.torch.load_file", fail)
    with pytest.raises(BrokenItemError, match="Input/output error"):
        store.read(KEY)
    assert store.has(KEY)


def test_a_full_disk_is_a_user_error_and_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="No space left on device"):
        store.write(KEY, {"latents": torch.zeros(32, 1, 1, 1)}, {})
    assert list(store.path(KEY).parent.iterdir()) == []
