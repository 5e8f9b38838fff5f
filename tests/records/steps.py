"""Steps of a made-up training, as its trainer would write them."""

from __future__ import annotations

import json
from dataclasses import replace

from hv15.records.metrics import SIGMA_BINS, MetricsRecord, StartRecord, StepRecord, metrics_line


def step_record(step: int, **changes: object) -> StepRecord:
    """Return a step that took two seconds, half a second of it waiting for data; its samples fell into one bin."""
    loss = changes.get("loss", 1 / step)
    by_sigma = [None] * SIGMA_BINS
    by_sigma[step % SIGMA_BINS] = loss  # type: ignore[call-overload]  # a number, if the test gave one
    record = StepRecord(
        step=step,
        time=1e9 + step,
        epoch=step / 4,
        loss=1 / step,
        loss_by_sigma=tuple(by_sigma),
        lr=1e-4,
        grad_norm=0.5,
        samples_per_s=2.0,
        data_wait_s=0.5,
        step_s=2.0,
        tokens_per_s=100.0,
        memory=2**33,
        memory_peak=2**34,
    )
    return replace(record, **changes)  # type: ignore[arg-type]  # the fields of a step, whatever their types


def start_record(total_steps: int, step: int = 0) -> StartRecord:
    """Return the beginning of a training."""
    return StartRecord(step=step, time=1e9 + step, total_steps=total_steps, spec="of the test")


def lines(*records: MetricsRecord) -> str:
    """Return records as the lines of a file."""
    return "".join(json.dumps(metrics_line(record)) + "\n" for record in records)
