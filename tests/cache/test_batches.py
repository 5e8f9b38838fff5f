"""Order of the items, and what is read."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
import torch

from hv15.cache.batches import BatchStream, Stores, TrainingItem, epoch_batches, read_batch
from hv15.cache.store import Store
from hv15.errors import UserError


def some_items(count: int = 23) -> list[TrainingItem]:
    """Two datasets with batch sizes 4 and 1, three shapes, repeats 1 and 2."""
    shapes = [(3, 4, 6), (1, 4, 6), (3, 6, 4)]
    return [
        TrainingItem(f"clip{i:03d}", f"caption{i // 2}", shapes[i % 3], "ab"[i % 2], (4, 1)[i % 2], (1, 2)[i % 2])
        for i in range(count)
    ]


def shown(items: list[TrainingItem], seed: int = 1, epoch: int = 0) -> list[list[TrainingItem]]:
    return [[items[i] for i in batch] for batch in epoch_batches(items, seed, epoch)]


def test_an_epoch_shows_each_item_as_often_as_it_says() -> None:
    items = some_items()
    counts = Counter(item for batch in shown(items) for item in batch)
    assert counts == {item: item.repeats for item in items}


def test_a_batch_holds_one_shape_of_one_dataset_and_nothing_is_dropped() -> None:
    for batch in shown(some_items()):
        assert len({(item.shape, item.dataset) for item in batch}) == 1
        assert len(batch) <= batch[0].batch_size
    groups = Counter((item.shape, item.dataset) for item in some_items() for _ in range(item.repeats))
    batches = Counter((batch[0].shape, batch[0].dataset) for batch in shown(some_items()))
    assert batches == {group: -(-count // {"a": 4, "b": 1}[group[1]]) for group, count in groups.items()}


def test_the_order_of_a_listing_does_not_matter() -> None:
    items = some_items()
    mixed = items.copy()
    random.Random(0).shuffle(mixed)
    assert shown(items) == shown(mixed)


def test_datasets_of_equal_identity_are_one() -> None:
    """The same clips in one dataset or spread over two equal ones, in either order."""
    first = [TrainingItem(f"{i}", "c", (1, 2, 2), "same", batch_size=2) for i in range(3)]
    second = [TrainingItem(f"{i}", "c", (1, 2, 2), "same", batch_size=2) for i in range(3, 8)]
    assert shown(first + second) == shown(second + first)
    assert len(shown(first + second)) == 4  # apart they would be 2 and 3


def test_seed_and_epoch_change_the_order() -> None:
    items = some_items()
    orders = [shown(items, seed, epoch) for seed in (1, 2) for epoch in (0, 1)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


def test_the_shuffle_is_fair() -> None:
    """Every item comes first about equally often, and small batches do not cluster at an end."""
    items = [TrainingItem(f"{i}", "c", (1, 2, 2), batch_size=2) for i in range(7)]
    orders = [epoch_batches(items, 5, epoch) for epoch in range(1400)]
    first = Counter(order[0][0] for order in orders)
    assert min(first.values()) > 140
    assert max(first.values()) < 260
    small = Counter(next(place for place, batch in enumerate(order) if len(batch) == 1) for order in orders)
    assert min(small.values()) > 280
    assert len(small) == 4


def test_repeats_are_spread_and_not_neighbours() -> None:
    items = [TrainingItem(f"{i}", "c", (1, 2, 2), batch_size=2, repeats=2) for i in range(6)]
    twice = sum(len(set(batch)) == 1 for epoch in range(100) for batch in epoch_batches(items, 0, epoch))
    assert 20 < twice < 100  # 600 batches, of which one in eleven by chance


def test_equal_clips_are_all_shown() -> None:
    """Two copies of a file have equal keys; both count."""
    items = [TrainingItem("same", "caption", (1, 2, 2))] * 3
    assert sorted(index for batch in epoch_batches(items, 0, 0) for index in batch) == [0, 1, 2]


def test_global_sample_numbers_run_on_over_batches_and_epochs() -> None:
    stream = BatchStream(some_items(), seed=3)
    per_epoch = stream.batches_per_epoch
    numbers = [number for index in range(3 * per_epoch) for number in stream[index].samples]
    assert numbers == list(range(3 * stream.samples_per_epoch))
    assert [stream[index].epoch for index in (0, per_epoch - 1, per_epoch, 3 * per_epoch - 1)] == [0, 0, 1, 2]


def test_any_position_is_the_same_whether_reached_or_jumped_to() -> None:
    walked = BatchStream(some_items(), seed=3)
    batches = [walked[index] for index in range(3 * walked.batches_per_epoch)]
    for index in (0, 17, walked.batches_per_epoch, len(batches) - 1):
        assert BatchStream(some_items(), seed=3)[index] == batches[index]


def test_no_items_is_a_clear_error() -> None:
    with pytest.raises(UserError, match="no clips"):
        BatchStream([], seed=0)


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    latents, texts = Store(tmp_path, "latents", "a"), Store(tmp_path, "text", "b")
    rng = torch.Generator().manual_seed(0)
    for clip in ("one", "two"):
        tensors = {
            "latents": torch.randn(8, 3, 4, 6, generator=rng).bfloat16(),
            "vision": torch.randn(5, 12, generator=rng),
        }
        latents.write(clip, tensors, {})
    latents.write("blind", {"latents": torch.randn(8, 3, 4, 6)}, {})
    for key, length, glyphs in (("short", 2, 0), ("long", 7, 3)):
        texts.write(
            key,
            {
                "text": torch.randn(length, 16, generator=rng).bfloat16(),
                "glyphs": torch.randn(glyphs, 10, generator=rng),
            },
            {},
        )
    return Stores(latents, texts)


def items_of(*clips: str) -> list[TrainingItem]:
    return [TrainingItem(clip, "", (3, 4, 6)) for clip in clips]


def test_a_batch_is_what_the_store_holds_with_texts_padded(stores: Stores) -> None:
    batch = read_batch(stores, items_of("one", "two"), captions=["short", "long"], with_vision=[False, False])
    condition = batch.condition
    assert torch.equal(batch.latents[1], stores.latents.read("two")["latents"])
    assert torch.equal(condition.text[0, :2], stores.texts.read("short")["text"])
    assert torch.equal(condition.glyphs[1], stores.texts.read("long")["glyphs"])
    assert not condition.text[0, 2:].any()
    assert (condition.text_lengths, condition.glyph_lengths) == ([2, 7], [0, 3])
    assert condition.text.shape == (2, 7, 16)
    assert condition.glyphs.shape == (2, 3, 10)


def test_no_glyphs_at_all_is_an_empty_tensor(stores: Stores) -> None:
    condition = read_batch(stores, items_of("one"), captions=["short"], with_vision=[False]).condition
    assert condition.glyphs.shape == (1, 0, 10)


def test_vision_is_there_only_where_it_is_asked_for(stores: Stores) -> None:
    captions = ["short", "short"]
    assert (
        read_batch(stores, items_of("one", "two"), captions=captions, with_vision=[False] * 2).condition.vision is None
    )
    condition = read_batch(stores, items_of("one", "two"), captions=captions, with_vision=[False, True]).condition
    assert condition.vision is not None
    assert condition.vision_lengths == [0, 5]
    assert not condition.vision[0].any()
    assert torch.equal(condition.vision[1], stores.latents.read("two")["vision"])


def test_an_item_that_is_missing_or_not_as_planned_is_named(stores: Stores) -> None:
    with pytest.raises(UserError, match="absent"):
        read_batch(stores, items_of("absent"), captions=["short"], with_vision=[False])
    with pytest.raises(UserError, match=r"blind.*no image features"):
        read_batch(stores, items_of("blind"), captions=["short"], with_vision=[True])
    with pytest.raises(UserError, match=r"one.*\(3, 4, 6\).*\(3, 4, 8\)"):
        read_batch(stores, [TrainingItem("one", "", (3, 4, 8))], captions=["short"], with_vision=[False])
