"""The settings of `train:` for the loss on clips that are not trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from hv15.config.datasets import DatasetSettings
from hv15.config.section import APART, MEASURING, PAST, WATCHING, Conflict, Many, Section
from hv15.records.metrics import QUANTILE_COUNT

_PART_OF_TIME = 0.01
"""What validations take at most, of the time of a training, where their distance is not set."""


NoiseLevels = Literal["training", "even"]
OF_TRAINING: NoiseLevels = "training"


class MeasuredDataset(DatasetSettings):
    """A dataset that is not trained on; it has the settings of the others."""


class ValidationSettings(Section):
    """The loss on clips that are not trained on, and on as many that are: while the first falls, the training learns
    what holds for other clips too."""

    fraction: Annotated[float, Field(ge=0.0, le=0.5)] = Field(0.0, json_schema_extra=PAST)
    """This part of the files is not trained on, e.g. 0.1. Which ones follows from their content, so they stay the same
    when others are added; at least one. 0 turns it off."""

    datasets: tuple[MeasuredDataset, ...] = Field((), json_schema_extra=MEASURING)
    """Instead of `fraction`: datasets of their own, which are never trained on."""

    every_n_steps: Many | None = Field(None, json_schema_extra=MEASURING)
    """Measure every so many steps. If neither this nor `every_n_epochs` is set: so often that it takes less than 1 % of
    the time."""

    every_n_epochs: Many | None = Field(None, json_schema_extra=MEASURING)
    """Measure every so many epochs instead."""

    at_first: bool = Field(False, json_schema_extra=MEASURING)
    """Also measure before the first step."""

    samples: Annotated[int, Field(ge=1, le=10_000)] = Field(QUANTILE_COUNT, json_schema_extra=MEASURING)
    """How many pairs of a clip and a noise level are measured, of the clips that are not trained on, and as many of
    those that are. There are nine levels, so multiples of 9 have each as often. A pair takes a third of a training
    step's time; one of image-to-video and text-to-video, twice that."""

    noise_levels: NoiseLevels = Field(OF_TRAINING, json_schema_extra=MEASURING)
    """At which noise levels is measured. `training`: the nine quantiles 0.1 to 0.9 of the training's own, so that the
    loss is that of the training. `even`: sigma 0.1 to 0.9, whatever is trained, so that trainings with different noise
    levels can be compared."""

    keep_best: bool = Field(False, json_schema_extra=WATCHING)
    """Keep a copy of the LoRA with the lowest loss so far, results/train/checkpoints/best.safetensors."""

    patience: Many | None = Field(None, json_schema_extra=PAST)
    """End the training when the loss was not lower than before in so many measurements, one after the other. The LoRA
    then depends on how often and on what is measured: with this, an edit of that is another training."""

    @property
    def is_on(self) -> bool:
        return self.fraction > 0 or bool(self.datasets)

    def conflicts(self) -> Iterator[Conflict]:
        yield from super().conflicts()
        if self.fraction and self.datasets:
            yield ("datasets",), "fraction is also set: keep one of them"
        for number, dataset in enumerate(self.datasets):
            if dataset.is_reg:
                yield ("datasets", number, "is_reg"), "is only for datasets that are trained on"
        if self.every_n_steps is not None and self.every_n_epochs is not None:
            yield ("every_n_epochs",), "every_n_steps is also set: keep one of them"
        for name in ("every_n_steps", "every_n_epochs", "at_first", "keep_best", "patience"):
            if getattr(self, name) and not self.is_on:
                yield (name,), "has no effect without fraction or datasets"
        if self.noise_levels != OF_TRAINING and not self.is_on:
            yield ("noise_levels",), "has no effect without fraction or datasets"
        for number, dataset in enumerate(self.datasets):
            for name in ("loss_weight", "start_step", "end_step"):
                if getattr(dataset, name) != DatasetSettings.model_fields[name].default:
                    yield ("datasets", number, name), "is only for datasets that are trained on"
        if self.patience is not None and self.every_n_steps is None and self.every_n_epochs is None:
            yield ("patience",), "needs every_n_steps or every_n_epochs, which then decide the length of the training"

    def passes(self, *, both_tasks: bool) -> int:
        """Return how many forward passes a measurement takes."""
        return 2 * self.samples * (2 if both_tasks else 1)

    def interval(self, samples_per_step: float, *, both_tasks: bool, checkpointing: bool) -> int | None:
        """Return the number of steps between measurements; None if they go by epochs.

        A forward pass takes a third of the time of a sample's training, or half of it without gradient checkpointing.
        """
        if self.every_n_steps is not None or self.every_n_epochs is not None:
            return self.every_n_steps
        share = 1 / 3 if checkpointing else 1 / 2
        return math.ceil(self.passes(both_tasks=both_tasks) * share / _PART_OF_TIME / samples_per_step)


class ValidatingSettings(Section):
    """What is measured beside the training."""

    validation: ValidationSettings = Field(ValidationSettings(), json_schema_extra=APART)
    """The loss on clips that are not trained on."""
