"""The loss on clips that are not trained on, and beside it on as many that are: the gap shows what is only memorised.

- It measures pairs of a clip and a noise level. The levels are the quantiles 0.1 to 0.9 of those of the training, or
  0.1 to 0.9 themselves (`train.validation.noise_levels`). Each pair has its own noise, the same at every step and in
  every training, so the losses of different steps can be compared, and those of trainings with the same levels. Clips
  are used as they are: a batch of one, with their captions and masks, without any dropout.
- Regularisation clips are left out.
- If both image-to-video and text-to-video are trained, each pair is measured as both.
- Nothing here draws from a random state or changes a weight: a training with validations gives the same LoRA.
- Several processes divide the pairs among them; the result is the same.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from heapq import nsmallest
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from hv15.background import Background
from hv15.cache.batches import Stores, TrainingItem, read_batch, read_masks
from hv15.config import Settings
from hv15.config.training.validation import OF_TRAINING
from hv15.digest import short
from hv15.lora import LoRANetwork
from hv15.models import DiT
from hv15.models.latents import scale
from hv15.noise.distributions import Uniform
from hv15.records.metadata import VALIDATION_LOSS
from hv15.records.metrics import QUANTILE_COUNT, ValidationRecord
from hv15.train.examples import Example
from hv15.train.fetch import Fetch
from hv15.train.intervals import Interval
from hv15.train.lora_writer import LoRAWriter
from hv15.train.losses import mean_square
from hv15.train.metrics import MetricsFile
from hv15.train.optimizer_state import averaged
from hv15.train.optimizer_step import OptimizerStep
from hv15.train.random import generator
from hv15.train.step_batches import StepBatches
from hv15.train.stopping import Stopping

if TYPE_CHECKING:
    from accelerate import Accelerator

log = logging.getLogger(__name__)

PROBABILITIES = tuple((number + 1) / (QUANTILE_COUNT + 1) for number in range(QUANTILE_COUNT))
ORDER = (4, 0, 8, 2, 6, 1, 7, 3, 5)
"""The order in which levels get pairs, so that any number of pairs covers the whole range."""
SEED = 0
"""Of the noise: the same in all trainings, whatever their own seeds."""
READ_AHEAD = 2  # inputs


class Pair(NamedTuple):
    """A clip at a noise level."""

    item: TrainingItem
    level: int
    """Place of its probability in `PROBABILITIES`."""
    draw: int
    """Number of pairs of this level before it; a clip that is used again has other noise."""


class Measurement(NamedTuple):
    """One forward pass."""

    pair: Pair
    is_trained: bool
    """Whether the clip is trained on."""
    i2v: bool


def choose_pairs(items: Iterable[TrainingItem], count: int) -> list[Pair]:
    """Choose pairs by content: for each level the clips with the smallest hashes of clip, caption and level.

    So a further clip changes few of them, and the levels have different clips.
    """
    distinct = list({(item.clip, item.caption): item for item in items}.values())
    draws = -(-count // QUANTILE_COUNT)
    chosen = [nsmallest(draws, distinct, key=lambda item: _place(item, level)) for level in range(QUANTILE_COUNT)]
    numbers = (divmod(number, QUANTILE_COUNT) for number in range(count))
    places = ((ORDER[place], draw) for draw, place in numbers)
    return [Pair(chosen[level][draw % len(chosen[level])], level, draw) for level, draw in places]


def _place(item: TrainingItem, level: int) -> bytes:
    return hashlib.sha256(f"{level}/{item.clip}/{item.caption}".encode()).digest()


def make_measurements(
    held_out: Iterable[TrainingItem], trained: Iterable[TrainingItem], count: int, i2v_prob: float
) -> list[Measurement]:
    """Return the forward passes of a validation.

    Args:
        held_out, trained: the clips of the two parts.
        count: number of pairs of each part.
        i2v_prob: see `ExampleReader`; a still image is always text-to-video.
    """
    found = []
    for is_trained, items in ((False, held_out), (True, trained)):
        for pair in choose_pairs(items, count):
            moves = pair.item.shape[0] > 1
            ways = [way for way, used in ((False, i2v_prob < 1 or not moves), (True, i2v_prob > 0 and moves)) if used]
            found += [Measurement(pair, is_trained, way) for way in ways]
    return found


def digest_of_clips(measurements: Iterable[Measurement]) -> str:
    """Return what is equal in trainings whose validation losses are those of the same clips, measured alike."""
    held_out = [each for each in measurements if not each.is_trained]
    return short([[each.pair.item.clip, each.pair.item.caption, *each.pair[1:], each.i2v] for each in held_out])


@dataclass(frozen=True)
class Share:
    """The part of one group of processes. Groups divide a training's batches and its validations among them."""

    group: int = 0
    groups: int = 1
    counts: bool = True
    """Whether this process's results count: in each group, only those of the first."""
    sum_up: Callable[[Tensor], Tensor] = torch.clone
    """Returns the sum of a tensor over all processes."""


@dataclass(frozen=True)
class Validation:
    """Measures the losses when they are due, and keeps the LoRA with the lowest."""

    interval: Interval
    measurements: Sequence[Measurement]
    sigmas: Sequence[float]
    """Of the levels."""
    stores: Stores
    batches: StepBatches
    dit: DiT
    network: LoRANetwork
    optimizer: torch.optim.Optimizer
    device: torch.device
    stopping: Stopping
    share: Share
    clips: str = ""
    """As in the record."""
    keep_best: Callable[[int, float], object] | None = None
    """Saves the LoRA after so many steps, which has this loss."""

    def is_due(self, step: int) -> bool:
        return self.interval.is_due(step, self.batches)

    def run(self, step: int, metrics: MetricsFile) -> None:
        """Measure, on all processes together.

        Raises:
            UserError: an item is missing or damaged, or the disk is full.
        """
        begun = perf_counter()
        losses = self.measure()
        held_out = [loss for loss, each in zip(losses, self.measurements, strict=True) if not each.is_trained]
        trained = [loss for loss, each in zip(losses, self.measurements, strict=True) if each.is_trained]
        loss = _mean(held_out)
        self.stopping.standing = self.stopping.standing.after(step, loss)
        is_best = loss is not None and self.stopping.standing.since_best == 0
        if loss is not None and is_best and self.keep_best is not None:
            self.keep_best(step, loss)
        metrics.write(
            ValidationRecord(
                step=step,
                loss=loss,
                trained_loss=_mean(trained),
                loss_by_quantile=self._by_level(losses, is_trained=False),
                trained_loss_by_quantile=self._by_level(losses, is_trained=True),
                loss_t2v=self._of_task(losses, is_trained=False, i2v=False),
                loss_i2v=self._of_task(losses, is_trained=False, i2v=True),
                trained_loss_t2v=self._of_task(losses, is_trained=True, i2v=False),
                trained_loss_i2v=self._of_task(losses, is_trained=True, i2v=True),
                sigmas=tuple(self.sigmas),
                clips=self.clips,
                is_best=is_best,
                seconds=round(perf_counter() - begun, 3),
            )
        )
        if loss is None:
            log.warning("validation after step %d: the loss is not a finite number", step)
        else:
            log.info("validation after step %d: loss %.4f%s", step, loss, ", the lowest so far" if is_best else "")

    def measure(self) -> list[float]:
        """Return the loss of each measurement, on all processes the same."""
        share, count = self.share, len(self.measurements)
        rounds = -(-count // share.groups)  # of all processes alike: those that share weights compute together
        own = [share.group + number * share.groups for number in range(rounds)]
        losses = torch.zeros(count, device=self.device)
        self.network.eval()
        try:
            with (
                torch.no_grad(),
                averaged(self.optimizer),
                closing(Background(map(self._read, own), ahead=READ_AHEAD, name="validation")) as examples,
            ):
                for index, example in zip(own, examples, strict=True):
                    on_device = example.to(self.device, self.dit.dtype)
                    found = mean_square(on_device.error(self.dit), on_device.mask)
                    if share.counts and index < count:
                        losses[index] = found[0]
        finally:
            self.network.train()
        return Fetch(share.sum_up(losses)).read()

    def _read(self, index: int) -> Example:
        example = self.example(self.measurements[min(index, len(self.measurements) - 1)])
        return example.pinned() if self.device.type == "cuda" else example

    def example(self, each: Measurement) -> Example:
        """Return the input of a measurement, on the CPU."""
        item, level, draw = each.pair
        content = read_batch(self.stores, [item], captions=[item.caption], with_vision=[each.i2v])
        x0, mask = scale(content.latents.float()), read_masks(self.stores, [item], [True])
        noise = torch.randn(x0.shape, generator=generator(SEED, f"validation/{item.clip}/{level}", draw))
        return Example(
            x0=x0,
            noise=noise,
            sigma=torch.tensor([self.sigmas[level]]),
            weight=torch.ones(1),
            first_frame=torch.tensor([float(each.i2v)]),
            condition=content.condition,
            mask=None if mask is None else mask.clamp(min=item.loss.unmasked_weight),
        )

    def _by_level(self, losses: Sequence[float], *, is_trained: bool) -> tuple[float | None, ...]:
        """The mean loss of each noise level; None for one without pairs."""
        found: list[list[float]] = [[] for _ in range(QUANTILE_COUNT)]
        for loss, each in zip(losses, self.measurements, strict=True):
            if each.is_trained == is_trained:
                found[each.pair.level].append(loss)
        return tuple(_mean(part) for part in found)

    def _of_task(self, losses: Sequence[float], *, is_trained: bool, i2v: bool) -> float | None:
        """The mean loss of one part as one task, if both are measured."""
        pairs = zip(losses, self.measurements, strict=True)
        ours = [(loss, each.i2v) for loss, each in pairs if each.is_trained == is_trained]
        if len({way for _, way in ours}) < 2:
            return None
        return _mean([loss for loss, way in ours if way == i2v])


def make_validation(
    settings: Settings,
    held_out: Sequence[TrainingItem],
    trained: Sequence[TrainingItem],
    stores: Stores,
    batches: StepBatches,
    step: OptimizerStep,
    network: LoRANetwork,
    writer: LoRAWriter,
    best: Path,
    accelerator: Accelerator,
) -> Validation:
    """Return the validation of a training, divided among its processes.

    Args:
        held_out, trained: the clips of the two parts.
        best: the file of the LoRA with the lowest loss.
    """
    options = settings.train
    asked = options.validation
    distribution = options.distribution() if asked.noise_levels == OF_TRAINING else Uniform()
    over_processes = step.over_processes
    every_n_steps = asked.interval(
        batches.stream.samples_per_batch * batches.batches_per_step,
        both_tasks=settings.trains_both_tasks,
        checkpointing=options.gradient_checkpointing,
    )
    group, rank = divmod(accelerator.process_index, options.context_parallel)
    sum_up = torch.clone if over_processes is None else over_processes.sum

    def keep(step: int, loss: float) -> None:
        writer.write(best, step, {VALIDATION_LOSS: str(loss)})

    learnt = [item for item in trained if not item.loss.is_reg]
    measurements = make_measurements(held_out, learnt, asked.samples, settings.i2v_prob)
    return Validation(
        interval=Interval(every_n_steps, asked.every_n_epochs, asked.at_first),
        measurements=measurements,
        sigmas=[distribution.quantile(probability) for probability in PROBABILITIES],
        stores=stores,
        batches=batches,
        dit=step.dit,
        network=network,
        optimizer=step.optimizer,
        device=step.device,
        stopping=Stopping(asked.patience),
        share=Share(group, options.num_processes, rank == 0, sum_up),
        clips=digest_of_clips(measurements),
        keep_best=keep if asked.keep_best and accelerator.is_main_process else None,
    )


def _mean(losses: Sequence[float]) -> float | None:
    """The mean; None if there are none, or one is not finite."""
    mean = sum(losses) / len(losses) if losses else math.nan
    return mean if math.isfinite(mean) else None
