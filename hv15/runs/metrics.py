"""A run keeps the metrics of its trainings, and their settings: the project's next training overwrites the files."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from hv15.atomic import atomic_path
from hv15.errors import UserError
from hv15.records.found_runs import trained_experiments
from hv15.records.json_values import JsonObject, RecordError, parse_object
from hv15.records.metrics import EndRecord, MetricsRecord, StartRecord, StepRecord, read_metrics
from hv15.records.paths import ProjectPaths
from hv15.records.rules import Rule
from hv15.records.training import RECORD, TrainingRecord
from hv15.runs.followed_file import CHUNK, last_objects
from hv15.runs.record import RunFolder

MOST_STEPS = 50_000
"""How many steps of a training are kept, evenly spread: enough for any curve, and some 20 MB."""
STALL_STEPS = 20
"""A training that has been silent for less than the time of this many steps has not stalled."""


@dataclass(frozen=True)
class TrainingProgress:
    """How far the training of a project is, by the last lines of its metrics."""

    step: int
    total: int
    """0 when it is not known."""
    loss: float | None
    eta_s: float | None
    """Seconds that are left if steps take as long as the last ones did."""
    time: float
    """When the last step was done, in seconds since 1970."""
    experiment: str = ""
    """Whose training it is; "" for that of the base config."""
    step_s: float | None = None
    """Seconds that a step takes: the median of the last ones."""


def trainings_progress(root: Path) -> list[TrainingProgress]:
    """Return how far each training of the project and its experiments is, or was; the last that took a step first."""
    found = [training_progress(each) for each in (ProjectPaths(root), *trained_experiments(root))]
    return sorted((each for each in found if each is not None), key=lambda each: -each.time)


def trainings_since(root: Path, begun: float) -> list[TrainingProgress]:
    """Return how far the trainings are that have taken a step since a run began, in seconds since 1970."""
    return [each for each in trainings_progress(root) if each.time >= begun]


def training_progress(paths: ProjectPaths) -> TrainingProgress | None:
    """Return how far a training is, or was; None if there is none."""
    path = paths.metrics
    records = [record for content in last_objects(path) if (record := _record(content)) is not None]
    steps = [record for record in records if isinstance(record, StepRecord)]
    if not steps:
        return None
    ends = [record for record in records if isinstance(record, StartRecord | EndRecord)]
    start = ends[-1] if ends else last_start(path)
    last, total = steps[-1], start.total_steps if start is not None else 0
    seconds = [record.step_s for record in steps if math.isfinite(record.step_s)]
    step_s = median(seconds) if seconds else None
    left = step_s * (total - last.step) if step_s is not None and total >= last.step else None
    loss = last.loss if last.loss is not None and math.isfinite(last.loss) else None
    return TrainingProgress(last.step, total, loss, left, last.time, paths.run, step_s)


def last_start(path: Path) -> StartRecord | None:
    """Return how the training of a metrics file was started last, wherever in it that is; None if it is not there."""
    found = b""
    with contextlib.suppress(OSError), path.open("rb") as file:
        for line in iter(lambda: file.readline(CHUNK), b""):
            if line.startswith(_START):
                found = line
    with contextlib.suppress(RecordError):
        record = read_metrics(parse_object(found))
        return record if isinstance(record, StartRecord) else None
    return None


def _record(content: JsonObject) -> MetricsRecord | None:
    try:
        return read_metrics(content)
    except RecordError:
        return None


def training_files(root: Path) -> list[tuple[str, Path]]:
    """Return (label, metrics file) of the project's training, of its experiments, and of earlier trainings.

    The first is labelled with its rule, experiments with their names, and earlier trainings, which were moved aside,
    with their folders.
    """
    paths = ProjectPaths(root)
    found: list[tuple[str, Path]] = [(Rule.TRAIN.value, paths.metrics)]
    with contextlib.suppress(OSError):
        found += [(each.run, each.metrics) for each in trained_experiments(root)]
    with contextlib.suppress(OSError):
        found += [(path.parent.name, path) for path in paths.set_aside()]
    return found


def kept_files(run: RunFolder) -> list[tuple[str, Path]]:
    """Return (label, file) of what a run has kept."""
    with contextlib.suppress(OSError):
        return [(path.stem, path) for path in sorted(run.metrics.glob("*.jsonl"))]
    return []


def record_of(metrics: Path) -> TrainingRecord | None:
    """Return which training a metrics file is of, the project's or one that a run has kept; None if that is unknown."""
    kept = metrics.with_suffix(f".{RECORD}")
    with contextlib.suppress(RecordError):
        return TrainingRecord.read(kept if kept.exists() else metrics.parent / RECORD)
    return None


def keep_metrics(run: RunFolder) -> None:
    """Copy the metrics that a run has written, thinned if they are very long; errors are ignored."""
    record = run.record()
    if record is None:
        return
    for label, path in training_files(run.root):
        target = run.metrics / f"{label}.jsonl"
        try:
            written = path.stat().st_mtime
            if written < record.started or (target.exists() and target.stat().st_mtime >= written):
                continue
            with path.open("rb") as source, atomic_path(target, durable=False) as part:
                with part.open("wb") as file:
                    file.writelines(_thinned(source, _count_lines(path)))
                os.utime(part, (written, written))
            shutil.copyfile(path.parent / RECORD, target.with_suffix(f".{RECORD}"))
        except (OSError, UserError):
            continue


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(CHUNK), b""))


_STEP, _START = (f'{{"kind": "{kind.kind}"'.encode() for kind in (StepRecord, StartRecord))
"""The beginning of a step's line, and of a start's."""


def _thinned(lines: Iterable[bytes], count: int) -> Iterator[bytes]:
    """All lines, or only some of the steps, evenly spread; other lines are few and all kept."""
    every = -(-count // MOST_STEPS) or 1
    for number, line in enumerate(lines):
        if number % every == 0 or number == count - 1 or not line.startswith(_STEP):
            yield line
