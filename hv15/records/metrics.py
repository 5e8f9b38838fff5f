"""metrics.jsonl: the records of a training, one JSON object per line, whose `kind` says which.

One process (`hv15.train.metrics`) appends whole lines. Each start of a training writes a `StartRecord`, with the
version of the records that follow.

A measured field is annotated with its `Measure`. The dashboard makes its charts from these, so a new field here that
the trainer fills is a new chart. A new field does not need a new version, but a change of a field's meaning does.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args, get_origin, get_type_hints

from hv15.records.fields import check_version, from_json, now, to_json
from hv15.records.json_values import JsonObject, RecordError, parse_object

VERSION = 1
"""Increased when the meaning of a field or a kind changes."""
SIGMA_BINS = 10
"""Number of equal bins of sigma, from 0 to 1, for which losses are recorded separately."""
QUANTILE_COUNT = 9
"""Number of noise levels of a validation: the quantiles 0.1 to 0.9 of the training's own, or sigma 0.1 to 0.9."""
SMOOTHING = 0.95
"""How much of a loss's running mean each step keeps, wherever a running mean is shown."""
STEP_SECONDS = "step_s"
"""The field of a step's duration."""

Unit = Literal["", "s", "1/s", "B"]


@dataclass(frozen=True)
class Measure:
    """How a measured field is shown. Fields with the same title share a chart."""

    title: str
    unit: Unit = ""
    log: bool = False
    """Whether a logarithmic axis makes sense."""
    label: str = ""
    """Distinguishes the field from others with the same title."""
    smoothed: bool = False
    """Whether a running mean is useful, too."""
    share_of: str = ""
    """The field as a fraction of which this one is shown; "" to show it unchanged."""
    bins: int = 0
    """Number of values in the field; 0 for a single number."""
    first_bin: int = 0
    """The number that the first of them is called by."""


@dataclass(frozen=True, kw_only=True)
class MetricsRecord:
    """The record of one line."""

    kind: ClassVar[str]
    step: int
    """Number of finished optimizer steps."""
    time: float = field(default_factory=now)
    """Seconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class StartRecord(MetricsRecord):
    """A training starts, or resumes after `step`."""

    kind = "start"
    version: int = VERSION
    total_steps: int
    spec: str
    """Digest of the training's spec."""
    samples_on_request: bool | None = None
    """Whether it can make samples when it is asked to; None if that is unknown."""


@dataclass(frozen=True, kw_only=True)
class StepRecord(MetricsRecord):
    """One optimizer step."""

    kind = "step"
    epoch: float
    """Number of finished epochs."""
    loss: Annotated[float | None, Measure("Loss", log=True, label="raw", smoothed=True)]
    """Mean square of the errors of the step's samples, under their masks, whatever loss and weights the training
    minimises; None if it is not finite, so that the step was skipped, or if all samples are regularisation."""
    loss_by_sigma: Annotated[
        tuple[float | None, ...], Measure("Loss by noise level (tenths of sigma)", log=True, bins=SIGMA_BINS)
    ]
    """The mean loss of each bin; None if it has no samples."""
    lr: Annotated[float, Measure("Learning rate", log=True)]
    grad_norm: Annotated[float | None, Measure("Gradient norm", log=True)]
    """The norm before clipping; None if it is not finite, so that the step was skipped."""
    clip_factor: Annotated[float, Measure("Gradient clipping: what is left of the gradients")] = 1.0
    """The factor that scaled the gradients down to `train.max_grad_norm`; 1 if they were not clipped."""
    samples_per_s: Annotated[float, Measure("Samples", unit="1/s")]
    data_wait_s: Annotated[float, Measure("Waiting for data, share of a step", share_of=STEP_SECONDS)]
    step_s: Annotated[float, Measure("Time of a step", unit="s")]
    tokens_per_s: Annotated[float, Measure("Tokens", unit="1/s")]
    """Latent tokens per second."""
    memory: Annotated[float, Measure("Memory", unit="B", label="now")]
    """Bytes in use after the step: on a GPU as torch counts them, else those of the process."""
    memory_peak: Annotated[float, Measure("Memory", unit="B", label="peak")]
    weight_norm: Annotated[float | None, Measure("Norms of the LoRA's layers", label="mean norm")] = None
    """The mean Frobenius norm of what the LoRA adds to a layer's weights, after the step; only with
    `train.scale_weight_norms`."""
    scaled_layers: Annotated[float | None, Measure("Norms of the LoRA's layers", label="share scaled down")] = None
    """The share of layers that were scaled down to `train.scale_weight_norms` in this step."""
    prior_loss: Annotated[float | None, Measure("Difference to the prediction without the LoRA", log=True)] = None
    """Mean square of it, in samples of which it is a target: with `reg_target: prior`, under their masks, and with
    `masked_prior_preservation_weight`, outside of them."""
    skipped_steps: Annotated[int, Measure("Skipped steps")] = 0
    """Number of steps so far whose loss or gradients were not finite, so that they changed nothing."""


@dataclass(frozen=True, kw_only=True)
class ValidationRecord(MetricsRecord):
    """The loss on clips that are not trained on, at fixed noise (`hv15.train.validation`).

    A loss that is not finite is None.
    """

    kind = "validation"
    loss: Annotated[float | None, Measure("Loss", log=True, label="validation")]
    trained_loss: Annotated[float | None, Measure("Loss", log=True, label="trained clips")] = None
    """The same on as many clips that are trained on."""
    loss_by_quantile: Annotated[
        tuple[float | None, ...],
        Measure("Validation by noise level (quantiles 0.1 to 0.9)", log=True, bins=QUANTILE_COUNT, first_bin=1),
    ] = ()
    """The mean loss at each noise level; None if it has no clips."""
    trained_loss_by_quantile: tuple[float | None, ...] = ()
    loss_t2v: Annotated[float | None, Measure("Validation by task", log=True, label="text-to-video")] = None
    """Of the clips measured without their first image, if both tasks are measured."""
    loss_i2v: Annotated[float | None, Measure("Validation by task", log=True, label="image-to-video")] = None
    trained_loss_t2v: Annotated[float | None, Measure("Validation by task", log=True, label="trained, t2v")] = None
    trained_loss_i2v: Annotated[float | None, Measure("Validation by task", log=True, label="trained, i2v")] = None
    sigmas: tuple[float, ...] = ()
    """The noise levels of the quantiles."""
    clips: str = ""
    """Digest of the clips that are not trained on with their captions, and of which are measured at which level; "" if
    an older version measured."""
    is_best: bool = False
    """Whether the loss was the lowest so far."""
    seconds: float = 0.0
    """How long it took."""


@dataclass(frozen=True, kw_only=True)
class PreviewRecord(MetricsRecord):
    """A sample was made during training."""

    kind = "preview"
    name: str
    """The name of the prompt."""
    path: str
    """Relative to the training's folder."""
    ema_decay: float | None = None
    """Of the moving average of the LoRA, if it was made with that."""


@dataclass(frozen=True, kw_only=True)
class CheckpointRecord(MetricsRecord):
    """A copy of the LoRA was saved."""

    kind = "checkpoint"
    path: str
    """Relative to the training's folder."""


@dataclass(frozen=True, kw_only=True)
class EndRecord(MetricsRecord):
    """A training ends before the length that it was given."""

    kind = "end"
    total_steps: int
    """Its length, which is the number of finished steps."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class WarningRecord(MetricsRecord):
    """Something that the user should know; the training continues."""

    kind = "warning"
    message: str
    hint: str = ""
    clips: tuple[str, ...] = ()
    """The names of the clips that it is about."""
    skipped: bool = False
    """Whether the step changed nothing."""


RECORDS: dict[str, type[MetricsRecord]] = {
    each.kind: each
    for each in (StartRecord, StepRecord, ValidationRecord, PreviewRecord, CheckpointRecord, EndRecord, WarningRecord)
}


def measures(record: type[MetricsRecord]) -> dict[str, Measure]:
    """Return the measured fields of a kind of record, in the order of the class."""
    hints = get_type_hints(record, include_extras=True).items()
    notes = [(name, note) for name, hint in hints if get_origin(hint) is Annotated for note in get_args(hint)]
    return {name: note for name, note in notes if isinstance(note, Measure)}


def metrics_line(record: MetricsRecord) -> JsonObject:
    """Return a record as the JSON object of its line.

    Its time comes last, so that the ends of lines differ: by them, readers notice that lines were written again.
    """
    content = to_json(record)
    time = content.pop("time")
    return {"kind": record.kind, **content, "time": time}


def read_metrics(content: JsonObject) -> MetricsRecord | None:
    """Return the record of a line; None if this version does not know its kind.

    A measured number that an older version did not write is NaN.

    Raises:
        RecordError: it is not a record of metrics, or is the start of a training of a newer version.
    """
    kind = RECORDS.get(str(content.get("kind")))
    if kind is None:
        return None
    record = from_json(kind, content, absent=math.nan)
    if isinstance(record, StartRecord):
        check_version(record.version, VERSION)
    return record


def read_records(path: Path, *, last_bytes: int | None = None) -> Iterator[MetricsRecord]:
    """Yield the records of a metrics file, or of its last bytes; damaged and unknown lines are skipped.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        if last_bytes is not None:
            file.seek(max(0, file.seek(0, os.SEEK_END) - last_bytes))
        for line in file:
            try:
                record = read_metrics(parse_object(line))
            except RecordError:
                continue
            if record is not None:
                yield record


def read_steps(path: Path, *, last_bytes: int | None = None) -> Iterator[StepRecord]:
    """Yield only the steps of what `read_records` yields.

    Raises:
        OSError: the file cannot be read.
    """
    return (each for each in read_records(path, last_bytes=last_bytes) if isinstance(each, StepRecord))
