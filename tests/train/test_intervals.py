"""When something is due that is done again and again."""

from __future__ import annotations

import pytest

from hv15.cache.batches import BatchStream, TrainingItem
from hv15.train.intervals import Interval
from hv15.train.step_batches import StepBatches


@pytest.mark.parametrize(
    ("interval", "due"),
    [
        (Interval(None, None, at_first=False), []),
        (Interval(None, None, at_first=True), [0]),
        (Interval(4, None, at_first=False), [4, 8]),
        (Interval(None, 2, at_first=True), [0, 6]),
        (Interval(4, 1, at_first=False), [3, 4, 6, 8, 9]),
    ],
)
def test_steps_and_epochs(interval: Interval, due: list[int]) -> None:
    three = [TrainingItem(clip=str(number), caption="c", shape=(1, 2, 2)) for number in range(3)]
    batches = StepBatches(BatchStream(three, 1), 1)  # three batches an epoch
    assert [step for step in range(10) if interval.is_due(step, batches)] == due


def test_an_epoch_that_ends_within_a_step_is_not_passed_over() -> None:
    three = [TrainingItem(clip=str(number), caption="c", shape=(1, 2, 2)) for number in range(3)]
    batches = StepBatches(BatchStream(three, 1), 2)  # epochs end in the middle of step 2, and after step 3
    assert [step for step in range(7) if Interval(None, 1, at_first=False).is_due(step, batches)] == [2, 3, 5, 6]
