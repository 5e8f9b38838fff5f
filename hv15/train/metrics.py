"""metrics.jsonl: one line a step, for people, plots and the dashboard. Append-only, one writer, whole lines.

A line of kind "step" holds: step (finished steps), epoch (finished epochs, a fraction), loss (mean over the samples of
the step), loss_by_sigma (the same for ten equal bins of sigma from 0 to 1, null where no sample fell), lr, grad_norm
(before clipping), samples_per_s, tokens_per_s (latent tokens), data_wait_s, step_s, memory and memory_peak (bytes on
the GPU, or of the process), time (seconds since 1970). Other kinds: "run" when a training starts or goes on,
"checkpoint" when a copy of the LoRA was written.
"""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from hv15.errors import UserError

SIGMA_BINS = 10


class MetricsFile:
    """The one writer of a metrics file. What stands behind `offset` bytes will be done again and is cut off.

    With `mute` (on all processes but the first) it writes nothing.
    """

    def __init__(self, path: Path, offset: int = 0, *, mute: bool = False) -> None:
        self.mute, self.offset = mute, offset
        if mute:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)
            self._file.truncate(min(offset, path.stat().st_size))
        except OSError as error:
            raise _unwritable(path, error) from error
        self.offset = self._file.seek(0, os.SEEK_END)

    def write(self, kind: str, **fields: Any) -> None:
        """Append one line, in one write where the disk has room.

        Raises:
            UserError: the disk is full.
        """
        if self.mute:
            return
        line = json.dumps({"kind": kind, **fields, "time": round(time.time(), 3)}, allow_nan=False) + "\n"
        try:
            # A disk that is nearly full takes a part without an error; the rest then raises.
            rest = memoryview(line.encode())
            while rest:
                rest = rest[self._file.write(rest) or 0 :]
        except OSError as error:
            raise _unwritable(self._file.name, error) from error
        self.offset += len(line)

    def __enter__(self) -> MetricsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.mute:
            self._file.close()


def _unwritable(path: Path | str, error: OSError) -> UserError:
    return UserError(
        f"{path}: cannot be written: {error.strerror}",
        hint="free some disk space and run the same command again: it goes on from the last saved state",
    )


def read_steps(path: Path) -> list[dict[str, Any]]:
    """Return the lines of kind "step"; a torn or foreign line is passed over."""
    steps = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and record.get("kind") == "step":
                steps.append(record)
    return steps


def loss_table(losses: Tensor, sigma: Tensor) -> Tensor:
    """Sum losses [B] by sigma [B]: fp32 [2, SIGMA_BINS], loss sums and sample counts, without a host sync."""
    bins = (sigma * SIGMA_BINS).long().clamp(0, SIGMA_BINS - 1)
    hits = (bins[:, None] == torch.arange(SIGMA_BINS, device=bins.device)).float()  # (B, bins)
    return torch.stack([losses.detach().float() @ hits, hits.sum(0)])


def loss_fields(sums: Sequence[float], counts: Sequence[float]) -> dict[str, Any]:
    """Return the `loss` and `loss_by_sigma` of a step from the rows of its loss table."""
    by_sigma = [total / count if count else None for total, count in zip(sums, counts, strict=True)]
    return {"loss": sum(sums) / sum(counts), "loss_by_sigma": by_sigma}


def memory_fields(device: torch.device) -> dict[str, int]:
    """Return bytes in use now and at the peak: the GPU's as torch counts them, else those of the process."""
    if device.type == "cuda":
        return {
            "memory": torch.cuda.memory_allocated(device),
            "memory_peak": torch.cuda.max_memory_allocated(device),
        }
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    now = pages * resource.getpagesize()
    return {"memory": now, "memory_peak": max(now, peak)}  # the kernel's peak lags behind


def first_and_last(values: Sequence[float], share: float = 0.1) -> tuple[float, float]:
    """Return the means of the first and of the last tenth (at least one value each)."""
    count = max(1, int(len(values) * share))
    return sum(values[:count]) / count, sum(values[-count:]) / count
