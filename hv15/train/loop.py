"""The training loop: it runs optimizer steps, and between them saves its state and whatever else is due.

- A GPU always has work queued, because the numbers of a step are read after the next step has been queued. Before
  anything is saved, the numbers of all steps so far are read and checked. A step with numbers that are not finite
  changes nothing, which the device decides itself (hv15.train.guard).
- All processes make the same decisions, because requests from outside are summed over them together with the losses.
- Everything random depends only on the step or the sample, so the loop can resume at any step as if it had not stopped.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Protocol

from hv15.background import Background
from hv15.cache.batches import MicroBatch
from hv15.config.train import TrainSettings
from hv15.errors import UserError
from hv15.out_of_memory import memory_advice
from hv15.progress import Progress
from hv15.records.metrics import EndRecord, MetricsRecord, StartRecord, StepRecord, WarningRecord, read_steps
from hv15.records.paths import ProjectPaths
from hv15.train.examples import Example, ExampleReader
from hv15.train.fetch import Fetch
from hv15.train.metrics import MetricsFile, losses_of_step, memory_in_use
from hv15.train.optimizer_state import restore_state, state_of
from hv15.train.optimizer_step import OptimizerStep, StepNumbers
from hv15.train.schedules import Schedule
from hv15.train.signals import Requests, Stopped
from hv15.train.smoothed import SmoothedLoss
from hv15.train.state import Position, SavedState, StateFolder
from hv15.train.step_batches import StepBatches
from hv15.train.stopping import Standing, Stopping
from hv15.train.watch import Watch

log = logging.getLogger(__name__)

READ_AHEAD = 2  # micro-batches
_PATHS = ProjectPaths()
RECALLED = 2**20
"""Bytes at the end of metrics.jsonl from which a resumed training learns what its numbers usually are."""


@dataclass(frozen=True)
class LoopSettings:
    """The settings that the loop itself needs."""

    total_steps: int
    schedule: Schedule
    state_every_n_steps: int
    max_bad_steps: int
    context_parallel: int = 1
    """Number of processes that compute each micro-batch together."""
    shard_base: bool = False
    """Whether all processes must run the same passes, because each has a part of the model."""

    @classmethod
    def from_settings(cls, options: TrainSettings, total_steps: int) -> LoopSettings:
        """Make them from `train:`."""
        return cls(
            total_steps=total_steps,
            schedule=Schedule.from_settings(options, total_steps),
            state_every_n_steps=options.state_every_n_steps,
            max_bad_steps=options.max_bad_steps,
            context_parallel=options.context_parallel,
            shard_base=options.shard_base,
        )


class Processes(Protocol):
    """What the loop needs of the processes that train together (`accelerate.Accelerator`)."""

    @property
    def process_index(self) -> int: ...

    @property
    def is_main_process(self) -> bool: ...

    def wait_for_everyone(self) -> object: ...


class BetweenSteps(Protocol):
    """What a training does between some of its steps, such as saving copies or validating.

    It does not depend on the length of the training, because a finished training may continue: then nothing that is
    due after its last step is done again.
    """

    def is_due(self, step: int) -> bool:
        """Whether to run after `step` finished steps (0: before the first); the same on all processes."""
        ...

    def run(self, step: int, metrics: MetricsFile) -> None:
        """Do it, on all processes together. The numbers of all steps so far have been checked."""
        ...


@dataclass
class QueuedStep:
    """A step that is queued on the device and whose numbers have not been read yet."""

    step: int
    """Its index."""
    lr: float
    samples: int
    """Number of samples on all processes."""
    tokens: int
    """Number of latent tokens on all processes."""
    numbers: Fetch
    """The numbers for `StepNumbers`."""
    data_wait: float
    """Seconds that this process waited for its micro-batches."""


@dataclass
class Trainer:
    """One training in memory."""

    settings: LoopSettings
    optimizer_step: OptimizerStep
    batches: StepBatches
    reader: ExampleReader
    accelerator: Processes
    folder: Path
    """`<output folder>/train`."""
    spec: str
    """Digest of the past of the training's spec."""
    between: Sequence[BetweenSteps] = ()
    """In the order in which they run. A stop does not wait for them: they run when the training resumes."""
    observers: Sequence[Callable[[MetricsRecord], None]] = ()
    """Called with each record that is written."""
    on_request: BetweenSteps | None = None
    """What also runs when a file asks for it, and takes long: the state is saved before it."""
    stopping: Stopping = field(default_factory=Stopping)
    """Ends the training early."""
    until: int | None = None
    """The step after which it stops as if it were asked to; None: none."""
    begin: Callable[[], SavedState] | None = None
    """Returns what the training starts from; None: from the network as it is, at step 0."""

    def resume(self) -> int:
        """Train to the end, from the newest saved state or, if there is none, from the beginning.

        Returns:
            The number of finished steps: fewer than the settings say if the training has ended early.

        Raises:
            UserError: as `run` and `begin`; or the state was saved with another number of batches per step.
            SystemExit: as `run`.
        """
        saved = StateFolder(self.folder / _PATHS.states.name, self.spec).load_latest()
        if saved is None and self.begin is not None:
            saved = self.begin()
        if saved is None:
            return self.run()
        before, now = saved.position.batches_per_step, self.batches.batches_per_step
        if before != now:
            raise UserError.at(
                self.folder,
                f"cannot resume: each step had {before} batches (train.num_processes times "
                f"train.gradient_accumulation_steps), but now would have {now}",
                hint=f"make the product of these settings {before} again, or move the folder away",
            )
        log.info("resuming after step %d of %d", saved.position.step, self.settings.total_steps)
        self.watch.skipped, self.watch.in_a_row = saved.position.skipped_steps, saved.position.bad_in_a_row
        self.optimizer_step.network.load_state_dict(saved.lora)
        if saved.optimizer:
            restore_state(self.optimizer_step.optimizer, saved.optimizer)
        if (average := self.optimizer_step.average) is not None:
            if saved.average is None:
                average.begin()
            else:
                average.restore(saved.average, saved.position.averaged_steps)
        self.stopping.standing = saved.position.standing or Standing()
        return self.run(saved.position.step, saved.position.metrics_offset, between_first=saved.position.between_due)

    def run(self, start: int = 0, metrics_offset: int = 0, *, between_first: bool = True) -> int:
        """Train from the step with index `start` to the end; with `between_first`, do first what is due before it.

        Returns:
            The number of finished steps, as `resume`.

        Raises:
            UserError: too many steps were bad, memory or disk is full, or an item cannot be read.
            Stopped: there was a request to stop; the state is saved.
        """
        total = self.settings.total_steps
        share = self.batches.share(start, total, self.accelerator.process_index // self.settings.context_parallel)
        examples = Background(map(self._read, share), ahead=READ_AHEAD, name="batches")
        smoothed = SmoothedLoss()
        path, mute = self.folder / _PATHS.metrics.name, not self.accelerator.is_main_process
        with (
            closing(examples),
            MetricsFile(path, metrics_offset, mute=mute, observers=self.observers) as metrics,
            Progress(total, "train", unit="steps", start=start) as progress,
            Requests(None if mute else self.folder / _PATHS.sample_now.name) as requests,
            memory_advice(),
        ):
            if start == total and self.watch.gives_up(total):
                raise self.watch.refusal(total)
            if not mute:
                self.watch.recall(read_steps(path, last_bytes=RECALLED))
            samples = self.on_request is not None
            metrics.write(StartRecord(step=start, total_steps=total, spec=self.spec, samples_on_request=samples))
            unread: list[QueuedStep] = []
            trouble: UserError | None = None
            stop = save = sample = False
            if between_first:
                self._run_between(start, metrics)
                if self.stopping.is_due:
                    self._save_state(start, metrics, between_due=False)
            if self.stopping.is_due:
                return self._end(start, metrics)
            self._since = perf_counter()
            for step in range(start, total):
                unread.append(self._queue(step, examples, requests))
                stop = stop or step + 1 == self.until
                due = self._is_due(step + 1)
                while len(unread) > (0 if due or stop or save or sample or trouble else self.read_behind):
                    record, warnings, asked = self._read_back(unread.pop(0))
                    stop, save, sample = (a or b for a, b in zip((stop, save, sample), asked, strict=True))
                    if trouble is None and self.watch.gives_up(record.step):
                        trouble = self.watch.refusal(record.step)
                    metrics.write(record)
                    self._warn(warnings, metrics)
                    progress.advance(note=f"loss {smoothed.update(record.loss):.4f}  lr {record.lr:.2e}")
                if not (due or stop or save or sample or trouble):
                    continue
                stops = trouble is not None or (stop and step + 1 < total)
                if not stops:
                    if self.on_request is not None and (sample or self.on_request.is_due(step + 1)):
                        self._save_state(
                            step + 1, metrics, between_due=True
                        )  # it takes minutes: nobody may wait so long
                    self._run_between(step + 1, metrics, requested=self.on_request if sample else None)
                    sample = False
                ends = self.stopping.is_due and not stops
                if stop or save or trouble or ends or self._saves_state(step + 1):
                    self._save_state(step + 1, metrics, between_due=stops)
                    save = False
                self._since = perf_counter()
                if trouble:
                    raise trouble
                if stops:
                    log.warning("saved at step %d; run the same command to resume", step + 1)
                    raise Stopped(step + 1)
                if ends:
                    return self._end(step + 1, metrics)
        return total

    @cached_property
    def read_behind(self) -> int:
        """The number of steps that may be queued without having been read; the same on all processes."""
        return 1 if self._on_gpu else 0

    @cached_property
    def watch(self) -> Watch:
        """What is known about the numbers of the steps so far."""
        return Watch(self.settings.total_steps, self.settings.max_bad_steps)

    @property
    def _on_gpu(self) -> bool:
        return self.optimizer_step.device.type == "cuda"

    def _saves_state(self, step: int) -> bool:
        return step == self.settings.total_steps or step % self.settings.state_every_n_steps == 0

    def _is_due(self, step: int) -> bool:
        """Whether anything is saved or done after this step, so that all numbers must be checked before."""
        return self._saves_state(step) or any(task.is_due(step) for task in self.between)

    def _run_between(self, step: int, metrics: MetricsFile, requested: BetweenSteps | None = None) -> None:
        for task in self.between:
            if task.is_due(step) or task is requested:
                task.run(step, metrics)

    def _read(self, task: tuple[int, MicroBatch]) -> tuple[int, Example]:
        index, batch = task
        example = self.reader(batch)
        if self.settings.shard_base and any(map(self.reader.needs_prior, self.batches.together(index))):
            example = replace(example, with_prior=True)
        return index, example.pinned() if self._on_gpu else example

    def _queue(self, step: int, examples: Background[tuple[int, Example]], requests: Requests) -> QueuedStep:
        """Queue a step on the device."""
        items = [item for batch in self.batches.of_step(step) for item in batch.items]
        waited = examples.waited
        queued = self.optimizer_step.run(
            islice(examples, self.batches.accumulation),
            micro_batches=self.batches.accumulation,
            samples=len(items),
            lr_factor=self.settings.schedule.factor(step),
            flags=requests.take,
        )
        tokens = sum(math.prod(item.shape) for item in items)
        return QueuedStep(step, queued.lr, len(items), tokens, Fetch(queued.tensor), examples.waited - waited)

    def _end(self, step: int, metrics: MetricsFile) -> int:
        """End the training early, after `step` steps."""
        best, later = self.stopping.standing.best_step, self.stopping.standing.since_best
        reason = f"the validation loss was lowest after step {best}, {later} validations ago"
        if step < self.settings.total_steps:
            metrics.write(EndRecord(step=step, total_steps=step, reason=reason))
            if self.accelerator.is_main_process:
                log.info("ends after step %d: %s", step, reason)
        return step

    def _warn(self, warnings: Sequence[WarningRecord], metrics: MetricsFile) -> None:
        for each in warnings:
            metrics.write(each)
            if self.accelerator.is_main_process:
                log.warning("step %d: %s", each.step, each.message)

    def _read_back(self, queued: QueuedStep) -> tuple[StepRecord, list[WarningRecord], Sequence[bool]]:
        """Return a step's metrics and warnings, and whether any process was asked to stop, to save or to sample."""
        numbers = StepNumbers.from_list(queued.numbers.read())
        loss, loss_by_sigma = losses_of_step(numbers.loss_sums, numbers.sample_counts)
        prior_loss = numbers.prior_loss_sum / numbers.prior_count if numbers.prior_count else None
        if prior_loss is not None and not math.isfinite(prior_loss):
            loss = prior_loss
        good = self.watch.count(loss, numbers.grad_norm)
        clips = [item.name for batch in self.batches.of_step(queued.step) for item in batch.items]
        warnings = list(self.watch.warnings(queued.step + 1, loss, numbers.grad_norm, clips))
        now = perf_counter()
        seconds, self._since = now - self._since, now
        memory, memory_peak = memory_in_use(self.optimizer_step.device)
        clipped = good and 0 < self.optimizer_step.max_grad_norm < numbers.grad_norm
        record = StepRecord(
            step=queued.step + 1,
            epoch=round(self.batches.epochs(queued.step + 1), 4),
            loss=None if loss is None else _finite(loss),
            prior_loss=None if prior_loss is None else _finite(prior_loss),
            loss_by_sigma=tuple(None if each is None else _finite(each) for each in loss_by_sigma),
            lr=queued.lr,
            grad_norm=_finite(numbers.grad_norm),
            clip_factor=self.optimizer_step.max_grad_norm / numbers.grad_norm if clipped else 1.0,
            samples_per_s=round(queued.samples / seconds, 4),
            data_wait_s=round(queued.data_wait, 4),
            step_s=round(seconds, 4),
            tokens_per_s=round(queued.tokens / seconds, 1),
            memory=memory,
            memory_peak=memory_peak,
            weight_norm=_finite(numbers.weight_norm),
            scaled_layers=_finite(numbers.scaled_layers),
            skipped_steps=self.watch.skipped,
        )
        return record, warnings, numbers.flags

    def _save_state(self, step: int, metrics: MetricsFile, *, between_due: bool) -> None:
        if self.accelerator.is_main_process:
            epoch = round(self.batches.epochs(step), 4)
            per_step, average = self.batches.batches_per_step, self.optimizer_step.average
            position = Position(
                step,
                epoch,
                metrics.offset,
                self.spec,
                per_step,
                between_due=between_due,
                samples=self.batches.samples(step),
                skipped_steps=self.watch.skipped,
                bad_in_a_row=self.watch.in_a_row,
                standing=self.stopping.standing,
                averaged_steps=0 if average is None else average.steps,
            )
            network, optimizer = self.optimizer_step.network, self.optimizer_step.optimizer
            states = StateFolder(self.folder / _PATHS.states.name, self.spec)
            averages = None if average is None else average.state()
            states.save(position, network.state_dict(), state_of(optimizer), averages)
        self.accelerator.wait_for_everyone()


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
