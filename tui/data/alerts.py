"""What a person should know at once: a loss that is NaN, a silent run, a disk or memory that runs out, a run's end."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from hv15.runs.state import RunState
from tui.data.history import RunRow
from tui.data.metrics import TrainingStatus
from tui.data.system import SystemSample

LOW_DISK = 5 << 30
LOW_DISK_SHARE = 0.02
LOW_MEMORY_SHARE = 0.05
FULL_GPU_SHARE = 0.98


@dataclass(frozen=True)
class Alert:
    """One thing to look at."""

    kind: Literal["nan", "skipped", "stall", "disk", "memory", "died", "failed"]
    text: str
    cure: str


def alerts(run: RunRow | None, training: TrainingStatus | None, sample: SystemSample | None) -> tuple[Alert, ...]:
    """Return what is wrong now, the worst first."""
    found: list[Alert] = []
    alive = run is not None and run.alive
    if run is not None and run.state is RunState.DIED:
        found.append(Alert("died", f"the run is dead: {run.reason}", "start again: what is finished is kept"))
    if run is not None and run.state is RunState.FAILED:
        found.append(Alert("failed", f"the run failed: {run.reason}", "see the failed job's card and its log"))
    if alive and training is not None and not training.former:
        if training.step and (training.loss is None or not math.isfinite(training.loss)):
            cure = "if more follow, stop it; lower train.learning_rate or lengthen train.lr_warmup_steps"
            found.append(Alert("nan", f"step {training.step} was skipped: its loss is not a number", cure))
        elif training.skipped:
            text = f"{training.skipped} of {training.step} steps were skipped: their loss or gradient was not a number"
            found.append(Alert("skipped", text, "i shows which clips were in them"))
        if training.stalled and training.silent_s is not None:
            cure = "it may be saving or sampling; if System shows no work, stop it and look at its log"
            text = f"no step for {training.silent_s / 60:.0f} min (usually {training.step_s or 0:.1f} s a step)"
            found.append(Alert("stall", text, cure))
    if sample is not None:
        found += _of_machine(sample, alive)
    return tuple(found)


def _of_machine(sample: SystemSample, alive: bool) -> list[Alert]:
    found = []
    if sample.disk_total and sample.disk_free < max(LOW_DISK, LOW_DISK_SHARE * sample.disk_total):
        text = f"only {sample.disk_free / 2**30:.1f} GiB of disk space are free"
        found.append(Alert("disk", text, "`hv15 gc` lists encoded items that are no longer needed"))
    if sample.memory_used > (1 - LOW_MEMORY_SHARE) * sample.memory_total:
        text = f"{sample.memory_used / sample.memory_total:.0%} of the machine's memory is in use"
        found.append(Alert("memory", text, "close other programs: when it is full, the system kills the largest one"))
    for gpu in sample.gpus if alive else ():
        if gpu.total and gpu.used > FULL_GPU_SHARE * gpu.total:
            text = f"GPU{gpu.index}: {gpu.used / 2**30:.1f} of {gpu.total / 2**30:.1f} GiB are in use"
            found.append(Alert("memory", text, "a longer clip may not fit: blocks_to_swap or quantize make room"))
    return found
