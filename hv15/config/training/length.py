"""The settings of `train:` that make its length and its steps."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field, model_validator

from hv15.config.section import LENGTH, PAST, SPEED, STEP, Conflict, Few, Many, Section, Seed


class LengthSettings(Section):
    """Length of the training and of its steps."""

    seed: Seed = Field(42, json_schema_extra=PAST)
    """Seed of all random draws: order, noise, timesteps, dropout, LoRA weights. The same seed gives the same LoRA."""

    max_train_steps: Many | None = Field(1600, json_schema_extra=LENGTH)
    """Length of the training in optimizer steps. Set this or `max_train_epochs`, not both."""

    max_train_epochs: Many | None = Field(None, json_schema_extra=LENGTH)
    """Length of the training in passes over the dataset (including repeats), instead of `max_train_steps`."""

    gradient_accumulation_steps: Few = Field(1, json_schema_extra=STEP)
    """Number of batches per optimizer step: has the effect of a larger batch without more memory, but each step takes
    as many times longer."""

    num_processes: Few = Field(1, json_schema_extra=STEP)
    """Number of GPUs that train together, each with batches of its own, on all machines. hv15 starts the processes. A
    step has num_processes x gradient_accumulation_steps batches; while this product stays the same, the training stays
    the same up to rounding, and continues with another number. With `context_parallel`, number of groups of GPUs."""

    num_machines: Few = Field(1, json_schema_extra=SPEED)
    """Number of machines that have the GPUs, each as many: nodes of the SLURM job, or started
    by hand (docs/how-it-works.md)."""

    @property
    def batches_per_step(self) -> int:
        """Number of batches in an optimizer step on all processes."""
        return self.gradient_accumulation_steps * self.num_processes

    @model_validator(mode="before")
    @classmethod
    def _epochs_replace_default_steps(cls, data: object) -> object:
        """Drop the default number of steps if a number of epochs is set."""
        if isinstance(data, dict) and data.get("max_train_epochs") is not None and "max_train_steps" not in data:
            return {**data, "max_train_steps": None}
        return data

    def conflicts(self) -> Iterator[Conflict]:
        yield from super().conflicts()
        if self.max_train_steps is not None and self.max_train_epochs is not None:
            yield ("max_train_epochs",), "max_train_steps is also set: keep one of them"
        if self.max_train_steps is None and self.max_train_epochs is None:
            yield ("max_train_steps",), "is required unless max_train_epochs is set"
        if self.num_processes % self.num_machines:
            text = f"found {self.num_machines}, which does not divide num_processes ({self.num_processes})"
            yield ("num_machines",), text
