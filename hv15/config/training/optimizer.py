"""The settings of `train:` for the optimizer and its learning rate."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, field_validator

from hv15.config.section import Section

OptimizerType = Literal["AdamW", "AdamW8bit", "Muon"]
OptimizerValue = bool | int | float | str | tuple[float, ...]
LRScheduler = Literal["constant", "cosine", "linear"]


class OptimizerSettings(Section):
    """The optimizer and its learning rate."""

    learning_rate: NonNegativeFloat = 1e-4
    """Peak learning rate. 1e-4 suits LoRA on this model with AdamW8bit or Muon; halve it if the loss jumps. 0 trains
    nothing, for comparison."""

    optimizer_type: OptimizerType = "AdamW8bit"
    """`AdamW8bit`: its state needs the least memory. `AdamW`: the same in 32 bits. `Muon`: as in the official
    training."""

    optimizer_args: dict[str, OptimizerValue] = Field(default_factory=dict)
    """Other arguments of the optimizer by name, e.g. {weight_decay: 0.01, betas: [0.9, 0.99]}."""

    lr_scheduler: LRScheduler = "constant"
    """The learning rate after the warm-up: constant, or falling to 0 along a cosine or a line."""

    lr_warmup_steps: int | float = 0
    """Number of steps in which the learning rate rises from 0; a number below 1 is a fraction of the whole training
    (0.05 = 5 %)."""

    max_grad_norm: NonNegativeFloat = 1.0
    """Gradients are scaled down to this norm; 0 turns it off."""

    @field_validator("optimizer_args", mode="before")
    @classmethod
    def _numbers_in_text(cls, value: object) -> object:
        """Read '1e-4' as a number, because other YAML readers, such as Snakemake's for --config, return it as text."""
        return {name: _as_number(entry) for name, entry in value.items()} if isinstance(value, dict) else value

    @field_validator("lr_warmup_steps")
    @classmethod
    def _steps_or_ratio(cls, value: int | float) -> int | float:
        if value < 0 or (value >= 1 and value != int(value)):
            raise ValueError(f"found {value}, expected a whole number of steps, or a fraction of the training below 1")
        return int(value) if value == int(value) else value


def _as_number(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value
