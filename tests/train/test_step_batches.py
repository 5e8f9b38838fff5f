"""How the stream of micro-batches is cut into steps and shared between processes."""

from __future__ import annotations

from hv15.cache.batches import BatchStream, TrainingItem
from hv15.train.step_batches import StepBatches


def stream() -> BatchStream:
    return BatchStream([TrainingItem(f"clip{i}", "c", (1, 2, 2)) for i in range(7)], seed=0)


def test_processes_share_the_batches_that_one_would_accumulate() -> None:
    alone, shared = StepBatches(stream(), accumulation=6), StepBatches(stream(), accumulation=2, processes=3)
    parts = [dict(shared.share(1, 4, process)) for process in range(3)]
    assert {index: batch for part in parts for index, batch in part.items()} == dict(alone.share(1, 4))
    assert [len(part) for part in parts] == [6, 6, 6]
    for step in range(4):
        assert alone.of_step(step) == shared.of_step(step)


def test_a_share_starts_where_its_step_starts() -> None:
    batches = StepBatches(stream(), accumulation=3)
    whole, rest = list(batches.share(0, 9)), list(batches.share(5, 9))
    assert whole[15:] == rest
    assert [batch for _, batch in rest[:3]] == batches.of_step(5)


def test_length_in_steps_and_epochs() -> None:
    batches = StepBatches(stream(), accumulation=3)  # 7 batches an epoch
    assert batches.total_steps(20, None) == 20
    assert batches.total_steps(None, 3) == 7
    assert batches.total_steps(None, 1) == 3  # the third step runs into the next epoch: all clips are seen
    assert [batches.finished_epochs(step) for step in range(8)] == [0, 0, 0, 1, 1, 2, 2, 3]
    assert batches.epochs(7) == 3.0


MIXED = [TrainingItem(f"clip{i}", "c", (1, 2, 2), batch_size=2) for i in range(7)]


def mixed() -> BatchStream:
    """Batches of 2, and of 1 at the end of each epoch of 7 samples."""
    return BatchStream(MIXED, seed=0)


def test_the_place_of_a_sample_in_the_stream() -> None:
    stream = mixed()
    begins = [stream[index].first_sample for index in range(13)]
    for sample in range(21):
        assert begins[stream.index_at(sample)] == min(begin for begin in begins if begin >= sample)


def test_steps_count_on_where_the_samples_of_another_training_end() -> None:
    """Three samples a step there, two batches a step here: whatever the batches are, no sample is used twice."""
    stream, used = mixed(), 3 * 4
    batches = StepBatches.of_items(MIXED, 0, accumulation=2, step=4, samples=used)
    first = batches.of_step(4)[0].first_sample
    assert used <= first < used + 2
    assert batches.samples(4) == first
    assert [batch.first_sample for step in (4, 5) for batch in batches.of_step(step)] == [
        stream[stream.index_at(used) + number].first_sample for number in range(4)
    ]
    assert [index for index, _ in batches.share(4, 6)] == [stream.index_at(used) + number for number in range(4)]
    assert batches.epochs(4) == stream.index_at(used) / 4
    assert batches.finished_epochs(batches.total_steps(None, 5)) == 5
    assert batches.finished_epochs(batches.total_steps(None, 5) - 1) == 4


def test_the_same_settings_take_the_same_steps() -> None:
    batches = StepBatches(mixed(), accumulation=3)
    after = StepBatches.of_items(MIXED, 0, accumulation=3, step=5, samples=batches.samples(5))
    assert after.offset == 0
    assert all(after.of_step(step) == batches.of_step(step) for step in range(9))
