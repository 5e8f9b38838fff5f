"""A run keeps the numbers of its trainings: the next training of the project begins its file anew."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from hv15.runs.record import RunFolder, history
from hv15.runs.state import last_lines

MOST_LINES = 50_000
"""Steps that are kept of a training, evenly spread: enough for any curve, and some 20 MB."""


@dataclass(frozen=True)
class TrainingProgress:
    """How far the training of a project is, by the last lines of its metrics."""

    step: int
    total: int
    loss: float | None
    eta_s: float | None
    """Seconds that are left if steps take as long as the last ones did."""
    time: float
    """When the last step was done, in seconds since 1970."""


def training_progress(root: Path) -> TrainingProgress | None:
    """Return how far the project's training is, or was; None when there is none. Only the ends of its file are read."""
    path = root / "results/train/metrics.jsonl"
    recent = last_lines(path)
    steps = [record for record in recent if record.get("kind") == "step"]
    begun = [record for record in [*_first_lines(path), *recent] if record.get("kind") == "run"]
    if not steps:
        return None
    last, total = steps[-1], int(_number(begun[-1].get("total_steps")) or 0) if begun else 0
    seconds = [value for record in steps if (value := _number(record.get("step_s"))) is not None]
    step = int(_number(last.get("step")) or 0)
    left = median(seconds) * (total - step) if seconds and total >= step else None
    return TrainingProgress(step, total, _number(last.get("loss")), left, _number(last.get("time")) or 0.0)


def _first_lines(path: Path) -> list[dict[str, Any]]:
    with contextlib.suppress(OSError, ValueError), path.open("rb") as file:
        record = json.loads(file.readline(1 << 16))
        return [record] if isinstance(record, dict) else []
    return []


def _number(value: Any) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if good else None


def training_files(root: Path) -> list[tuple[str, Path]]:
    """Return (label, metrics file) of the project's training, "train", of its experiments, by their names, and of
    earlier trainings that were moved aside, by their folders."""
    found = [("train", root / "results/train/metrics.jsonl")]
    with contextlib.suppress(OSError):
        found += [(path.parts[-3], path) for path in sorted(root.glob("results/*/train/metrics.jsonl"))]
    with contextlib.suppress(OSError):
        found += [(path.parts[-2], path) for path in sorted(root.glob("results/train-*/metrics.jsonl"))]
    return found


def kept_files(run: RunFolder) -> list[tuple[str, Path]]:
    """Return (label, file) of what a run has kept."""
    with contextlib.suppress(OSError):
        return [(path.stem, path) for path in sorted((run.path / "metrics").glob("*.jsonl"))]
    return []


def keep_last_metrics(root: Path) -> None:
    """Keep the metrics of a project's last run before another begins: it may have died before it could."""
    for run in history(root)[:1]:
        keep_metrics(run)


def keep_metrics(run: RunFolder) -> None:
    """Copy the metrics that a run has written, thinned if they are very long; whatever goes wrong is passed over."""
    record = run.record()
    if record is None:
        return
    for label, path in training_files(run.root):
        target = run.path / "metrics" / f"{label}.jsonl"
        try:
            written = path.stat().st_mtime
            if written < record.started or (target.exists() and target.stat().st_mtime >= written):
                continue
            target.parent.mkdir(exist_ok=True)
            part = target.with_suffix(".part")
            with path.open("rb") as source, part.open("wb") as file:
                file.writelines(_thinned(source, _lines(path)))
            os.utime(part, (written, written))
            part.replace(target)
        except OSError:
            continue


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


def _thinned(lines: Iterable[bytes], count: int) -> Iterator[bytes]:
    """All lines, or of the steps every so many; other lines are few and stay."""
    every = -(-count // MOST_LINES) or 1
    for number, line in enumerate(lines):
        if every == 1 or number % every == 0 or number == count - 1 or _kind(line) != "step":
            yield line


def _kind(line: bytes) -> object:
    if line.startswith(b'{"kind": "step"'):
        return "step"
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record.get("kind") if isinstance(record, dict) else None
