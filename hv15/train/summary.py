"""Sums up a whole training from its metrics (`hv15.records.summary`)."""

from __future__ import annotations

import platform
from array import array
from collections.abc import Sequence
from pathlib import Path

import torch

from hv15.records.metrics import StepRecord, read_steps
from hv15.records.summary import TrainingSummary
from hv15.train.metadata import versions

SHARE = 0.1
"""The fraction of the steps, at the start and at the end, over which losses are averaged."""


def summarise(metrics: Path, device: torch.device) -> TrainingSummary:
    """Summarise a metrics file that has steps; only the steps' losses are kept in memory.

    Raises:
        OSError: the file cannot be read.
    """
    losses, prior_losses = array("d"), array("d")
    seconds = data_wait = memory_peak = 0.0
    last: StepRecord | None = None
    for last in read_steps(metrics):
        if last.loss is not None:
            losses.append(last.loss)
        if last.prior_loss is not None:
            prior_losses.append(last.prior_loss)
        seconds += last.step_s
        data_wait += last.data_wait_s
        memory_peak = max(memory_peak, last.memory_peak)
    assert last is not None
    loss_first, loss_last = first_and_last(losses or prior_losses)
    return TrainingSummary(
        steps=last.step,
        skipped_steps=last.skipped_steps,
        epochs=last.epoch,
        loss_first=loss_first,
        loss_last=loss_last,
        train_seconds=round(seconds, 1),
        data_wait_seconds=round(data_wait, 1),
        memory_peak=memory_peak,
        finished=last.time,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        versions=versions(),
    )


def first_and_last(values: Sequence[float]) -> tuple[float, float]:
    """Return the means of the first and of the last tenth of the values, at least one value each."""
    count = max(1, int(len(values) * SHARE))
    return sum(values[:count]) / count, sum(values[-count:]) / count
