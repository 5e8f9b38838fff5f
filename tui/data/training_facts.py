"""What is known of a training besides its curves: validation, moving average, what it started from, skipped steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hv15.records.json_values import JsonObject
from hv15.records.metrics import PreviewRecord, ValidationRecord, WarningRecord
from hv15.records.paths import ProjectPaths, average_of
from hv15.records.training import TrainingRecord
from hv15.train.origin import Origin
from hv15.train.segments import segment
from hv15.workflow.segment_words import segment_words
from tui.data.metrics import ToldRecord, TrainingStatus


@dataclass(frozen=True)
class Average:
    """The moving average of a LoRA."""

    decay: float
    path: Path
    is_there: bool
    in_previews: bool
    """Whether previews are made with it."""


@dataclass(frozen=True)
class TrainingFacts:
    """All of it."""

    label: str
    status: TrainingStatus
    validations: tuple[ValidationRecord, ...]
    warnings: tuple[WarningRecord, ...]
    """Those of skipped steps included."""
    average: Average | None
    """None: there is none, or it is not known."""
    segments: tuple[str, ...]
    """The trainings that made the LoRA one after the other, a line each; empty if it was one."""

    @property
    def best(self) -> ValidationRecord | None:
        """The validation with the lowest loss."""
        measured = [each for each in self.validations if each.loss is not None]
        return min(measured, key=lambda each: each.loss or 0.0, default=None)


def training_facts(
    label: str, metrics: Path, status: TrainingStatus, told: Sequence[ToldRecord], record: TrainingRecord | None
) -> TrainingFacts:
    """Return the facts of a training.

    Args:
        metrics: its metrics file.
        told: what that tells beside the steps.
        record: which training it is, if that is known.
    """
    previews = [each for each in told if isinstance(each, PreviewRecord)]
    return TrainingFacts(
        label=label,
        status=status,
        validations=tuple(each for each in told if isinstance(each, ValidationRecord)),
        warnings=tuple(each for each in told if isinstance(each, WarningRecord)),
        average=None if record is None else _average(metrics, record.config, previews),
        segments=() if record is None else tuple(_segments(record)),
    )


def _average(metrics: Path, config: JsonObject, previews: Sequence[PreviewRecord]) -> Average | None:
    train = config.get("train")
    decay = train.get("ema_decay") if isinstance(train, dict) else None
    if not isinstance(train, dict) or not isinstance(decay, int | float) or not decay:
        return None
    path = average_of(metrics.parent.parent / ProjectPaths().lora.name)
    used = previews[-1].ema_decay is not None if previews else bool(train.get("preview_average"))
    return Average(float(decay), path, path.exists(), used)


def _segments(record: TrainingRecord) -> list[str]:
    last = Origin.of_spec(record.past)
    return [] if last is None else segment_words([*record.segments, {**segment(last), "config": record.config}])
