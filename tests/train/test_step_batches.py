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
