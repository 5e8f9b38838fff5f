"""A resumable training of one network by AdamW, for the stages that do not use the trainer of LoRAs.

What a step sees depends only on stage and step, so a killed stage resumes as if it had not stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from hv15.progress import Progress
from hv15.records.metrics import MetricsRecord
from hv15.train.metrics import MetricsFile
from hv15.train.schedules import Schedule
from hv15.train.signals import Requests, Stopped
from hv15.train.state import Position, StateFolder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepResult:
    """What a step has measured, for its record."""

    loss: float
    error: float
    """The mean squared error."""
    grad_norm: float
    lr: float
    """Peak learning rate, times the factor of the step's place in the schedule."""


@dataclass(frozen=True)
class Course:
    """How long a network is trained, and how fast."""

    name: str
    steps: int
    rate: float
    """Peak learning rate: linear warm-up over `warmup` steps, then a cosine to zero."""
    warmup: int
    state_every: int


Losses = Callable[[int], tuple[Tensor, Tensor]]
"""Returns the loss, and the mean squared error, of the step with this index."""


def train(
    network: nn.Module,
    groups: list[dict[str, object]],
    course: Course,
    losses: Losses,
    work: Path,
    *,
    spec: str,
    record: Callable[[int, StepResult], MetricsRecord],
    note: Callable[[StepResult], str],
) -> None:
    """Train the network in place, or resume its training.

    Args:
        groups: the network's parameters, with the `peak` learning rate of each group.
        work: folder of the states and of metrics.jsonl.
        spec: digest of all that the training depends on; states of another one are not used.
        record: makes the line of metrics.jsonl for the number of finished steps.
        note: what the progress shows.

    Raises:
        UserError: a file cannot be written.
        SystemExit: code 3 after SIGTERM or Ctrl-C, with the state saved.
    """
    parameters = list(network.parameters())
    schedule = Schedule("cosine", course.steps, course.warmup)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    states = StateFolder(work / "state", spec)
    first, offset = 0, 0
    if (saved := states.load_latest()) is not None:
        network.load_state_dict(saved.lora)
        optimizer.load_state_dict(saved.optimizer)
        first, offset = saved.position.step, saved.position.metrics_offset
    with (
        MetricsFile(work / "metrics.jsonl", offset) as metrics,
        Progress(course.steps, course.name, unit="steps", start=first) as progress,
        Requests() as requests,
    ):
        for step in range(first, course.steps):
            factor = schedule.factor(step)
            for group in optimizer.param_groups:
                group["lr"] = factor * group["peak"]
            loss, error = losses(step)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            result = StepResult(loss.item(), error.item(), norm.item(), factor * course.rate)
            metrics.write(record(step + 1, result))
            progress.advance(note=note(result))
            stop, save, _ = requests.take()
            if stop or save or step + 1 == course.steps or (step + 1) % course.state_every == 0:
                position = Position(step + 1, 0.0, metrics.offset, spec, 1)
                states.save(position, network.state_dict(), optimizer.state_dict())
            if stop and step + 1 < course.steps:
                log.warning("saved at step %d; run the same command to resume", step + 1)
                raise Stopped(step + 1)
