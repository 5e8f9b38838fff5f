"""Writes metrics.jsonl (`hv15.records.metrics`), and measures a step's losses and memory."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hv15.errors import UserError
from hv15.own_files import cure, open_own
from hv15.records.metrics import SIGMA_BINS, MetricsRecord, metrics_line

if TYPE_CHECKING:
    from hv15.train.objective import ExampleLosses


class MetricsFile:
    """Appends to a metrics file, after cutting it to `offset` bytes: the steps after those will be run again.

    With `mute`, for all processes but the first, it writes nothing.

    Args:
        observers: called with each record that was written.

    Raises:
        UserError: the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        offset: int = 0,
        *,
        mute: bool = False,
        observers: Sequence[Callable[[MetricsRecord], None]] = (),
    ) -> None:
        self.mute, self.offset, self._path, self._observers = mute, offset, path, observers
        if mute:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.fdopen(open_own(path, os.O_WRONLY | os.O_APPEND), "ab", buffering=0)
            self._file.truncate(min(offset, os.fstat(self._file.fileno()).st_size))
        except OSError as error:
            raise _unwritable(path, error) from error
        self.offset = self._file.seek(0, os.SEEK_END)

    def write(self, record: MetricsRecord) -> None:
        """Append one line, in a single write if the disk has room.

        Raises:
            UserError: the disk is full.
        """
        if self.mute:
            return
        line = json.dumps(metrics_line(record), allow_nan=False) + "\n"
        try:
            # A nearly full disk writes a part without an error; writing the rest then raises.
            rest = memoryview(line.encode())
            while rest:
                rest = rest[self._file.write(rest) or 0 :]
        except OSError as error:
            raise _unwritable(self._path, error) from error
        self.offset += len(line)
        for observer in self._observers:
            observer(record)

    def __enter__(self) -> MetricsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.mute:
            self._file.close()


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError.at(
        path,
        f"cannot be written: {error.strerror}",
        hint=cure(error, "free some disk space and run the same command again: it resumes from the last saved state"),
    )


def loss_numbers(losses: ExampleLosses, sigma: Tensor) -> Tensor:
    """Return the losses of a micro-batch at sigma [B], without a host sync: fp32 [2 * SIGMA_BINS + 2].

    They are the two rows of its loss table, then the sum and the number of the losses against the prior.
    """
    own = sigma.new_zeros(2 * SIGMA_BINS) if losses.recorded is None else loss_table(losses.recorded, sigma).flatten()
    if losses.prior is None:
        return torch.cat([own, own.new_zeros(2)])
    return torch.cat([own, losses.prior.sum().view(1), own.new_full((1,), len(losses.prior))])


def loss_table(losses: Tensor, sigma: Tensor) -> Tensor:
    """Sum losses [B] by bins of sigma [B]; return fp32 [2, SIGMA_BINS], sums and sample counts, without a host sync."""
    bins = (sigma * SIGMA_BINS).long().clamp(0, SIGMA_BINS - 1)
    hits = (bins[:, None] == torch.arange(SIGMA_BINS, device=bins.device)).float()  # (B, bins)
    return torch.stack([losses.detach().float() @ hits, hits.sum(0)])


def losses_of_step(sums: Sequence[float], counts: Sequence[float]) -> tuple[float | None, tuple[float | None, ...]]:
    """Return the loss of a step, and its losses by bin of sigma, from the rows of its loss table.

    They are None where there are no samples.
    """
    by_sigma = tuple(total / count if count else None for total, count in zip(sums, counts, strict=True))
    return sum(sums) / sum(counts) if any(counts) else None, by_sigma


def memory_in_use(device: torch.device) -> tuple[int, int]:
    """Return the bytes in use now and at the peak: on a GPU as torch counts them, else those of the process."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    now = pages * resource.getpagesize()
    return now, max(now, peak)  # the kernel's peak lags behind
