"""Datasets that begin and end within a training."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from hv15.cache.batches import BatchStream, TrainingItem
from hv15.errors import UserError
from hv15.spans import Span
from hv15.train.scheduled import ScheduledStream
from hv15.train.step_batches import StepBatches


def clips(dataset: str, count: int, span: Span, batch_size: int = 1) -> list[TrainingItem]:
    return [
        TrainingItem(f"{dataset}{number}", "c", (1, 2, 2), dataset, batch_size=batch_size, span=span)
        for number in range(count)
    ]


A, B, C = clips("a", 5, Span(0, 6)), clips("b", 3, Span(4)), clips("c", 4, Span(0))
"""With two batches in a step: 9 batches an epoch in steps 1 to 4, 12 in steps 5 and 6, 7 from step 7 on."""
BOUNDARIES = (8, 12)
"""Positions at which a part begins."""


def steps(step: int = 0, samples: int = 0, accumulation: int = 2, processes: int = 1) -> StepBatches:
    return StepBatches.of_items([*A, *B, *C], 3, accumulation, processes, step=step, samples=samples)


def datasets_of(batches: StepBatches, step: int) -> set[str]:
    return {item.dataset for batch in batches.of_step(step) for item in batch.items}


def test_a_dataset_takes_part_only_in_its_steps() -> None:
    batches = steps()
    seen = [datasets_of(batches, step) for step in range(40)]
    for step, found in enumerate(seen):
        assert found <= {"c"} | ({"a"} if step < 6 else set()) | ({"b"} if step >= 4 else set())
    assert "b" in seen[4] | seen[5]
    assert set().union(*seen[6:]) == {"b", "c"}


def test_without_begins_and_ends_it_is_the_plain_stream() -> None:
    plain, scheduled = BatchStream(C, 3), ScheduledStream(C, 3, 2)
    for index in range(30):
        assert scheduled[index] == plain[index]
        for name in ("samples_before", "epochs", "finished_epochs", "index_after"):
            assert getattr(scheduled, name)(index) == getattr(plain, name)(index)
    assert scheduled.samples_per_batch == plain.samples_per_batch == 1.0


def test_samples_are_numbered_through() -> None:
    """So every draw has a name of its own."""
    stream = steps().stream
    numbers = [number for index in range(60) for number in stream[index].samples]
    assert numbers == list(range(60))
    assert [stream.samples_before(index) for index in range(60)] == numbers


def test_each_part_begins_a_new_epoch_and_an_epoch_that_is_cut_off_counts() -> None:
    batches = steps()
    epochs = [batches.stream[index].epoch for index in range(40)]
    assert epochs == [0] * 8 + [1] * 4 + [2] * 7 + [3] * 7 + [4] * 7 + [5] * 7
    assert [batches.epochs(step) for step in (0, 4, 5, 6)] == [0, 1, 1 + 2 / 12, 2]
    assert [batches.finished_epochs(step) for step in (0, 3, 4, 5, 6, 9, 10)] == [0, 0, 1, 1, 2, 2, 3]
    for epoch in (2, 3, 4):  # a whole one
        shown = Counter(item for index in range(40) if epochs[index] == epoch for item in batches.stream[index].items)
        assert shown == Counter([*B, *C])


def test_epochs_of_different_parts_have_orders_of_their_own() -> None:
    always = clips("c", 40, Span(0))
    stream = StepBatches.of_items([*always, *clips("b", 1, Span(20))], 3, 2).stream
    before, after = ([stream[index].items[0].clip for index in range(start, start + 41)] for start in (0, 40))
    assert [clip for clip in after if clip != "b0"] != before[:40]


def test_the_length_in_epochs_follows_the_parts() -> None:
    batches = steps()
    assert [batches.total_steps(None, epochs) for epochs in (1, 2, 3, 4)] == [4, 6, 10, 13]
    for epochs in range(1, 9):
        total = batches.total_steps(None, epochs)
        assert batches.finished_epochs(total) >= epochs > batches.finished_epochs(total - 1)
    stream = batches.stream
    assert [stream.index_after(epochs) for epochs in (0, 1, 2, 3)] == [0, *BOUNDARIES, 19]


def test_any_number_of_processes_takes_the_same_steps() -> None:
    alone, shared = steps(accumulation=6), steps(accumulation=2, processes=3)
    for step in range(12):
        assert alone.of_step(step) == shared.of_step(step)


@pytest.mark.parametrize("step", [0, 1, 4, 5, 6, 7, 20])
def test_a_training_that_counts_on_with_the_same_settings_takes_the_same_steps(step: int) -> None:
    """`continue_from` gives the number of samples that were used."""
    whole = steps()
    after = steps(step, whole.samples(step))
    assert after.offset == 0
    assert all(after.of_step(each) == whole.of_step(each) for each in range(step, 30))


@pytest.mark.parametrize("step", [3, 5, 9])
def test_a_training_that_counts_on_with_larger_steps_uses_no_sample_twice(step: int) -> None:
    used = steps().samples(step)
    after = steps(step, used, accumulation=5)
    numbers = [number for each in range(step, 20) for batch in after.of_step(each) for number in batch.samples]
    assert min(numbers) >= used
    assert len(numbers) == len(set(numbers)) == 5 * (20 - step)
    for each in range(step, 20):
        assert datasets_of(after, each) <= {"c"} | ({"a"} if each < 6 else set()) | ({"b"} if each >= 4 else set())


def test_batches_of_several_clips() -> None:
    items = [*clips("a", 5, Span(0, 3), batch_size=2), *clips("b", 4, Span(3), batch_size=4)]
    batches = StepBatches.of_items(items, 0, 2)
    sizes = [len(batch.items) for step in range(6) for batch in batches.of_step(step)]
    assert sorted(sizes[:3]) == sorted(sizes[3:6]) == [1, 2, 2]
    assert sizes[6:] == [4] * 6
    assert batches.samples(6) == 10 + 24
    assert batches.stream.samples_per_batch == pytest.approx(5 / 3), "of the part with the fewest"


def test_a_part_without_clips_is_told_before_the_training() -> None:
    """Files of a dataset may have been left out; the config is checked before."""
    with pytest.raises(UserError, match="no clip is left to train on in steps 1 to 4"):
        StepBatches.of_items(B, 0, 1)
    ends = StepBatches.of_items(A, 0, 1)
    assert ends.total_steps(6, None) == 6
    assert (ends.samples(6), ends.epochs(6), ends.finished_epochs(6)) == (6, 2, 2)
    with pytest.raises(UserError, match="no clip is left to train on from step 7 on"):
        ends.total_steps(7, None)
    with pytest.raises(UserError, match="no clip is left to train on from step 7 on"):
        ends.total_steps(None, 3)
    assert StepBatches.of_items(B, 0, 1, step=4, samples=9).total_steps(9, None) == 9, "what is over is over"


def test_no_items_is_a_clear_error() -> None:
    with pytest.raises(UserError, match="no clips to train on"):
        StepBatches.of_items([], 0, 1)


def test_a_share_of_a_training_that_begins_late() -> None:
    batches = steps(accumulation=1, processes=2)
    own = [batch for process in (0, 1) for _, batch in batches.share(3, 8, process)]
    assert sorted(batch.first_sample for batch in own) == list(range(6, 16))
    assert math.isclose(batches.epochs(8), 2 + 4 / 7)
