"""The training loop: accumulate gradients over a global batch, step, record, save.

- The gradient of a step is that of the mean loss over all its samples, whatever their batches and processes.
- A GPU is never waited for while it has nothing queued: the metrics of a step are read when the next one is queued.
  What is saved is read and checked first.
- What decides about the way on is in the table that is summed over the processes, so that all of them decide alike.
- Everything random is named by the step or the sample, so the loop starts at any step as if it had never stopped.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from hv15.cache.batches import MicroBatch, Prefetcher
from hv15.errors import UserError
from hv15.out_of_memory import memory_advice
from hv15.progress import Progress
from hv15.records.metrics import SMOOTHING, CheckpointRecord, StartRecord, StepRecord
from hv15.train.checkpoints import CheckpointRule
from hv15.train.examples import Example, ExampleReader
from hv15.train.fetch import Fetch
from hv15.train.metrics import MetricsFile, loss_table, losses_of_step, memory_in_use
from hv15.train.optimizers import set_learning_rate
from hv15.train.random import seed_for
from hv15.train.schedules import Schedule, lr_factor
from hv15.train.signals import Requests, Stopped
from hv15.train.state import Position, SavedState, StateFolder
from hv15.train.steps import StepPlan

if TYPE_CHECKING:
    from accelerate import Accelerator

    from hv15.models import DiT

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoopSettings:
    """What the loop itself needs of the settings."""

    seed: int
    total_steps: int
    lr_scheduler: Schedule = "constant"
    warmup: int = 0
    max_grad_norm: float = 1.0
    state_every_n_steps: int = 250
    checkpoints: CheckpointRule = field(default_factory=CheckpointRule)


@dataclass
class Launched:
    """A step that is queued, and what is known of it before its numbers are read."""

    step: int
    """Its index."""
    lr: float
    samples: int
    tokens: int
    """Latent tokens."""
    numbers: Tensor
    """On the device: the loss table, the flags of `Trainer.compute`, the gradient norm."""
    fetch: Fetch | None = None
    data_wait: float = 0.0


class Trained(Protocol):
    """What a training needs of that which it trains (`hv15.lora.LoRANetwork`)."""

    def set_step_seed(self, seed: int) -> None: ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: dict[str, Tensor], /) -> object: ...


@dataclass
class Trainer:
    """One training in memory. `dit` is frozen and carries `network`, whose parameters `optimizer` moves."""

    settings: LoopSettings
    dit: DiT
    network: Trained
    optimizer: torch.optim.Optimizer
    reader: ExampleReader
    plan: StepPlan
    accelerator: Accelerator
    folder: Path
    """`<output folder>/train`."""
    spec: str
    """Digest of the training spec."""
    save_lora: Callable[[Path, int], None]
    """Writes the LoRA as it is after a number of steps."""

    def restore(self, saved: SavedState) -> None:
        """Put a saved state into network and optimizer."""
        self.network.load_state_dict(saved.lora)
        self.optimizer.load_state_dict(saved.optimizer)

    def run(self, start: int = 0, metrics_offset: int = 0) -> None:
        """Train from the step with index `start` to the end.

        Raises:
            UserError: the loss is not finite, memory or disk is full, an item cannot be read.
            Stopped: after a request to stop, with the state saved.
        """
        total = self.settings.total_steps
        examples = Prefetcher(self._read, self.plan.share(start, total, self.accelerator.process_index))
        shown = SmoothedLoss()
        path, mute = self.folder / "metrics.jsonl", not self.accelerator.is_main_process
        with (
            closing(examples),
            MetricsFile(path, metrics_offset, mute=mute) as metrics,
            Progress(total, "train", unit="steps", start=start) as progress,
            Requests() as requests,
            memory_advice(),
        ):
            metrics.write(StartRecord(step=start, total_steps=total, spec=self.spec))
            unread: list[Launched] = []
            stop = save = False
            self._since = perf_counter()
            for step in range(start, total):
                unread.append(self._launch(step, examples, requests))
                due = self._is_due(step + 1)
                while len(unread) > (0 if due or stop or save else self.read_behind):
                    record, asked_stop, asked_save = self._read_back(unread.pop(0))
                    stop, save = stop or asked_stop, save or asked_save
                    metrics.write(record)
                    progress.advance(note=f"loss {shown.update(record.loss):.4f}  lr {record.lr:.2e}")
                if not (due or stop or save):
                    continue
                self._write_checkpoints(step + 1, metrics)
                if stop or save or self._saves_state(step + 1):
                    self._save_state(step + 1, metrics)
                    save = False
                self._since = perf_counter()
                if stop and step + 1 < total:
                    log.warning("saved at step %d; run the same command to go on", step + 1)
                    raise Stopped(step + 1)

    @cached_property
    def read_behind(self) -> int:
        """How many steps may be queued whose numbers nobody has read. The same on all processes: they act alike."""
        return 1 if self.accelerator.device.type == "cuda" else 0

    def _saves_state(self, step: int) -> bool:
        return step == self.settings.total_steps or step % self.settings.state_every_n_steps == 0

    def _is_due(self, step: int) -> bool:
        """Whether something is saved after this step, so that it has to be known to be good."""
        return self._saves_state(step) or bool(self._checkpoints(step))

    def compute(
        self, step: int, examples: Iterator[tuple[int, Example]], flags: Callable[[], Sequence[bool]] = tuple
    ) -> Launched:
        """Do one optimizer step. Everything is queued on the device, nothing is waited for.

        Args:
            examples: gives the step's micro-batches with their global indices.
            flags: of this process, asked after the backward passes; their sums over all processes are read back.
        """
        batches = self.plan.batches(step)
        samples = sum(len(batch.items) for batch in batches)
        tables: list[Tensor] = []
        for _ in range(self.plan.accumulation):
            index, example = next(examples)
            example = example.to(self.accelerator.device, self.dit.dtype)
            self.network.set_step_seed(seed_for(self.settings.seed, "dropout", index))
            losses = example.losses(self.dit)
            (losses.sum() / samples).backward()
            tables.append(loss_table(losses, example.sigma))
        table = torch.stack(tables).sum(0).flatten()
        table = self._sum_over_processes(torch.cat([table, *(table.new_full((1,), flag) for flag in flags())]))
        grad_norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm or math.inf)
        lr = set_learning_rate(self.optimizer, self._lr_factor(step))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        tokens = sum(math.prod(item.shape) for batch in batches for item in batch.items)
        return Launched(step, lr, samples, tokens, torch.cat([table, grad_norm.view(1)]))

    def _launch(
        self, step: int, examples: Prefetcher[tuple[int, MicroBatch], tuple[int, Example]], requests: Requests
    ) -> Launched:
        waited = examples.waited
        launched = self.compute(step, examples, requests.take)
        launched.fetch, launched.data_wait = Fetch(launched.numbers), examples.waited - waited
        return launched

    def _read_back(self, launched: Launched) -> tuple[StepRecord, bool, bool]:
        """Return a step's metrics, and whether any process was asked to stop or to save while it ran."""
        assert launched.fetch is not None
        *table, stop, save, norm = launched.fetch.read()
        bins = len(table) // 2
        loss, loss_by_sigma = losses_of_step(table[:bins], table[bins:])
        check_finite(launched.step + 1, loss, norm)
        now = perf_counter()
        seconds, self._since = now - self._since, now
        memory, memory_peak = memory_in_use(self.accelerator.device)
        record = StepRecord(
            step=launched.step + 1,
            epoch=round(self.plan.epochs(launched.step + 1), 4),
            loss=loss,
            loss_by_sigma=loss_by_sigma,
            lr=launched.lr,
            grad_norm=norm,
            samples_per_s=round(launched.samples / seconds, 4),
            tokens_per_s=round(launched.tokens / seconds, 1),
            data_wait_s=round(launched.data_wait, 4),
            step_s=round(seconds, 4),
            memory=memory,
            memory_peak=memory_peak,
        )
        return record, stop > 0, save > 0

    @cached_property
    def parameters(self) -> list[torch.nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _read(self, task: tuple[int, MicroBatch]) -> tuple[int, Example]:
        index, batch = task
        example = self.reader(batch)
        return index, example.pinned() if self.accelerator.device.type == "cuda" else example

    def _lr_factor(self, step: int) -> float:
        settings = self.settings
        return lr_factor(step, settings.total_steps, schedule=settings.lr_scheduler, warmup=settings.warmup)

    def _sum_over_processes(self, table: Tensor) -> Tensor:
        """Sum gradients and the loss table over all processes, each in one transfer."""
        for parameter in self.parameters:
            if parameter.grad is None:  # a skipped layer, or the unused text stream of the last block
                parameter.grad = torch.zeros_like(parameter)
        if self.accelerator.num_processes == 1:
            return table
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        flat = self.accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), "sum")
        for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))
        return self.accelerator.reduce(table, "sum")

    def _write_checkpoints(self, step: int, metrics: MetricsFile) -> None:
        """Keep copies of the LoRA on the way."""
        if not self.accelerator.is_main_process:
            return
        folder = self.folder / "checkpoints"
        for name in self._checkpoints(step):
            self.save_lora(folder / name, step)
            metrics.write(CheckpointRecord(step=step, path=f"checkpoints/{name}"))
        for path in self.settings.checkpoints.expired(folder):
            path.unlink(missing_ok=True)

    def _checkpoints(self, step: int) -> list[str]:
        """The names of the copies that are due after a step; the last step's is the output itself."""
        if step == self.settings.total_steps:
            return []
        epochs, before = self.plan.finished_epochs(step), self.plan.finished_epochs(step - 1)
        return self.settings.checkpoints.due(step, epochs, before)

    def _save_state(self, step: int, metrics: MetricsFile) -> None:
        if self.accelerator.is_main_process:
            epoch = round(self.plan.epochs(step), 4)
            position = Position(step, epoch, metrics.offset, self.spec, self.plan.batches_per_step)
            states = StateFolder(self.folder / "state", self.spec)
            states.save(position, self.network.state_dict(), self.optimizer.state_dict())
        self.accelerator.wait_for_everyone()


class SmoothedLoss:
    """A running mean whose start is not pulled towards zero."""

    def __init__(self) -> None:
        self._sum = self._weight = 0.0

    def update(self, loss: float) -> float:
        self._sum = SMOOTHING * self._sum + (1 - SMOOTHING) * loss
        self._weight = SMOOTHING * self._weight + (1 - SMOOTHING)
        return self._sum / self._weight


def check_finite(step: int, loss: float, grad_norm: float) -> None:
    """Stop before anything is saved when a step went wrong.

    Raises:
        UserError: loss or gradient norm is NaN or infinite.
    """
    if math.isfinite(loss) and math.isfinite(grad_norm):
        return
    raise UserError(
        f"step {step}: the loss is {loss} and the gradient norm {grad_norm}: the training has diverged; "
        "nothing of this step was saved",
        hint="lower train.learning_rate or lengthen train.lr_warmup_steps; in the very first steps the cause may be a "
        "damaged model file (download it again) or the number format (set train.dtype to float32); "
        "states and checkpoints of earlier steps are kept",
    )
