"""A run keeps the numbers of its trainings: the next training of the project begins its file anew."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from hv15.runs.record import RunFolder, RunRecord

MOST_LINES = 50_000
"""Steps that are kept of a training, evenly spread: enough for any curve, and some 20 MB."""


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


def keep_metrics(run: RunFolder, record: RunRecord | None = None) -> None:
    """Copy the metrics that a run has written, thinned if they are very long; whatever goes wrong is passed over."""
    record = record or run.record()
    for label, path in training_files(run.root) if record else []:
        target = run.path / "metrics" / f"{label}.jsonl"
        try:
            written = path.stat().st_mtime
            if record is None or written < record.started or (target.exists() and target.stat().st_mtime >= written):
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
