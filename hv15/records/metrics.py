"""metrics.jsonl: what a training tells of itself, one JSON object a line, by `kind`.

Written by one process (`hv15.train.metrics`), whole lines, at the end of the file only. Each start of a training writes
a `StartRecord`, with the version of what follows.

A field that is measured carries its `Measure`. The dashboard makes its charts from these, so a field that is added here
and filled by the trainer is a new chart. Such a field needs no new version; one whose meaning changes does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args, get_origin, get_type_hints

from hv15.records.fields import check_version, from_json, now, to_json
from hv15.records.json_values import JsonObject, RecordError, parse_object

VERSION = 1
"""Raised when a field or a kind gets another meaning."""
SIGMA_BINS = 10
"""Equal parts of sigma, from 0 to 1, by which losses are told apart."""
SMOOTHING = 0.95
"""How much of the running mean of a loss each step keeps, wherever one is shown."""
STEP_SECONDS = "step_s"
"""The field of a step that tells how long it took."""

Unit = Literal["", "s", "1/s", "B"]


@dataclass(frozen=True)
class Measure:
    """What a measured field is to a person. Fields of one title share a chart."""

    title: str
    unit: Unit = ""
    log: bool = False
    """Whether a logarithmic axis makes sense."""
    label: str = ""
    """What tells the field from others of its title."""
    smoothed: bool = False
    """Whether a running mean is of interest too."""
    share_of: str = ""
    """The field of which this one is shown as a part; "" for one that is shown as it is."""
    bins: int = 0
    """How many values the field holds; 0 for one that is a single number."""


@dataclass(frozen=True, kw_only=True)
class MetricsRecord:
    """One line."""

    kind: ClassVar[str]
    step: int
    """Finished optimizer steps."""
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


@dataclass(frozen=True, kw_only=True)
class StepRecord(MetricsRecord):
    """One optimizer step."""

    kind = "step"
    epoch: float
    """Finished epochs."""
    loss: Annotated[float, Measure("Loss", log=True, label="raw", smoothed=True)]
    """Mean over the samples of the step."""
    loss_by_sigma: Annotated[
        tuple[float | None, ...], Measure("Loss by noise level (tenths of sigma)", log=True, bins=SIGMA_BINS)
    ]
    """The same for each bin; None where no sample fell."""
    lr: Annotated[float, Measure("Learning rate", log=True)]
    grad_norm: Annotated[float, Measure("Gradient norm", log=True)]
    """Before clipping."""
    clip_factor: Annotated[float, Measure("Gradient clipping: what is left of the gradients")] = 1.0
    """By how much the gradients were scaled down to `train.max_grad_norm`; 1 leaves them as they are."""
    samples_per_s: Annotated[float, Measure("Samples", unit="1/s")]
    data_wait_s: Annotated[float, Measure("Waiting for data, share of a step", share_of=STEP_SECONDS)]
    step_s: Annotated[float, Measure("Time of a step", unit="s")]
    tokens_per_s: Annotated[float, Measure("Tokens", unit="1/s")]
    """Of latents."""
    memory: Annotated[float, Measure("Memory", unit="B", label="now")]
    """Bytes after the step, on the GPU as torch counts them, else of the process."""
    memory_peak: Annotated[float, Measure("Memory", unit="B", label="peak")]


@dataclass(frozen=True, kw_only=True)
class ValidationRecord(MetricsRecord):
    """The loss on clips that are kept from training."""

    kind = "validation"
    loss: Annotated[float, Measure("Loss", log=True, label="validation")]


@dataclass(frozen=True, kw_only=True)
class PreviewRecord(MetricsRecord):
    """A sample was made on the way."""

    kind = "preview"
    name: str
    """Of the prompt."""
    path: str
    """From the training's folder."""


@dataclass(frozen=True, kw_only=True)
class CheckpointRecord(MetricsRecord):
    """A copy of the LoRA was kept."""

    kind = "checkpoint"
    path: str
    """From the training's folder."""


@dataclass(frozen=True, kw_only=True)
class WarningRecord(MetricsRecord):
    """Something that a person should know, though the training continues."""

    kind = "warning"
    message: str
    hint: str = ""


RECORDS: dict[str, type[MetricsRecord]] = {
    each.kind: each
    for each in (StartRecord, StepRecord, ValidationRecord, PreviewRecord, CheckpointRecord, WarningRecord)
}


def measures(record: type[MetricsRecord]) -> dict[str, Measure]:
    """Return the measured fields of a kind of record, in their order."""
    hints = get_type_hints(record, include_extras=True).items()
    notes = [(name, note) for name, hint in hints if get_origin(hint) is Annotated for note in get_args(hint)]
    return {name: note for name, note in notes if isinstance(note, Measure)}


def metrics_line(record: MetricsRecord) -> JsonObject:
    """Return a record as the JSON object of its line."""
    return {"kind": record.kind, **to_json(record)}


def read_metrics(content: JsonObject) -> MetricsRecord | None:
    """Return the record of a line; None if it is of a kind that this version does not know.

    A measured number that an older version did not write is NaN.

    Raises:
        RecordError: it is not what a record looks like, or begins a training of a version that is not understood.
    """
    kind = RECORDS.get(str(content.get("kind")))
    if kind is None:
        return None
    record = from_json(kind, content, absent=math.nan)
    if isinstance(record, StartRecord):
        check_version(record.version, VERSION)
    return record


def read_steps(path: Path) -> Iterator[StepRecord]:
    """Yield the steps of a metrics file; a torn or foreign line is passed over.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        for line in file:
            try:
                record = read_metrics(parse_object(line))
            except RecordError:
                continue
            if isinstance(record, StepRecord):
                yield record
