from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hv15.cache.store import SHA256, BrokenItemError, Store, content_sha256
from hv15.errors import UserError
from hv15.records.paths import EncodedKind

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


@pytest.mark.parametrize("kind", ["latents", "text"])
def test_each_flipped_bit_of_the_tensors_is_found(kind: EncodedKind, tmp_path: Path) -> None:
    """No flip makes NaN of these numbers, so nothing but the digest can tell."""
    store = Store(tmp_path, kind, "0123456789abcdef")
    tensors = {
        "latents": {"latents": torch.ones(2, 1, 2, 2), "vision": torch.ones(2, 3, dtype=torch.float16)},
        "text": {"text": torch.ones(2, 3, dtype=torch.bfloat16), "glyphs": torch.ones(1, 3)},
    }[kind]
    store.write(KEY, tensors, {})
    whole = store.path(KEY).read_bytes()
    begin = 8 + int.from_bytes(whole[:8], "little")
    for place in range(begin, len(whole)):
        for bit in (0, 5):  # of an exponent's bits, none that makes all of them 1
            flipped = bytearray(whole)
            flipped[place] ^= 1 << bit
            store.path(KEY).write_bytes(flipped)
            with pytest.raises(BrokenItemError, match="damaged"):
                store.read(KEY)
            assert not store.has(KEY)
    store.path(KEY).write_bytes(whole)
    assert store.read(KEY).keys() == tensors.keys()


def test_an_item_of_another_shape_with_equal_bytes_is_found(store: Store) -> None:
    latents = torch.randn(2, 1, 2, 4)
    save_file({"latents": latents.reshape(2, 1, 4, 2)}, made(store), {SHA256: content_sha256({"latents": latents})})
    with pytest.raises(BrokenItemError, match="damaged"):
        store.read(KEY)


def made(store: Store) -> Path:
    """The place of an item that the test writes itself."""
    store.path(KEY).parent.mkdir(parents=True, exist_ok=True)
    return store.path(KEY)


@pytest.mark.parametrize(
    "damage", ["missing", "truncated", "garbage", "empty", "nan", "axes", "unknown", "without", "digest"]
)
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


def test_an_item_that_cannot_be_read_for_now_is_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(KEY, {"latents": torch.zeros(32, 1, 1, 1)}, {})

    def fail(path: Path, framework: str) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("safetensors.safe_open", fail)
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
