"""`train:` the LoRA and its training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, field_validator

from hv15.config.section import PAST, SPEED, Conflict
from hv15.config.training.averaging import AveragingSettings
from hv15.config.training.examples import ExampleSettings
from hv15.config.training.length import LengthSettings
from hv15.config.training.loss import LossSettings
from hv15.config.training.network import NetworkSettings
from hv15.config.training.previews import PreviewSettings
from hv15.config.training.saving import SavingSettings
from hv15.config.training.schedule import ScheduleSettings, in_steps
from hv15.config.training.start import StartSettings
from hv15.config.training.timesteps import TimestepSettings
from hv15.config.training.tracking import TrackingSettings
from hv15.config.training.trouble import TroubleSettings
from hv15.config.training.validation import ValidatingSettings
from hv15.config.transformer import Quantize, TransformerSettings


# The last base's settings come first in the docs and the dashboard.
class TrainSettings(
    TransformerSettings,
    TroubleSettings,
    TrackingSettings,
    ValidatingSettings,
    AveragingSettings,
    PreviewSettings,
    SavingSettings,
    ExampleSettings,
    LossSettings,
    TimestepSettings,
    NetworkSettings,
    ScheduleSettings,
    StartSettings,
    LengthSettings,
):
    """Training: length, optimizer, LoRA size, noise levels, loss, what is saved."""

    gradient_checkpointing: bool = Field(True, json_schema_extra=SPEED)
    """Recompute activations in the backward pass instead of keeping them. About a third slower; without it, real sizes
    do not fit on any GPU."""

    gradient_checkpointing_cpu_offload: bool = Field(False, json_schema_extra=SPEED)
    """Keep the tensors of gradient checkpointing (the input of each block) in CPU memory instead of GPU memory. Slower;
    saves 54 x 4 KiB per token in bfloat16."""

    shard_base: bool = Field(False, json_schema_extra=SPEED)
    """Divide the frozen model among the GPUs that train together: each holds a share of every block and gets the rest
    when it computes (FSDP2). The results are the same; every step sends the model twice to each GPU."""

    # Sampling has it, too, where it is of no training's past.
    quantize: Quantize = Field(
        "none", description=TransformerSettings.model_fields["quantize"].description, json_schema_extra=PAST
    )

    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", json_schema_extra=PAST)
    """Number format in which the model computes. `auto`: bfloat16 on a GPU that supports it, else float32."""

    @property
    def gpus(self) -> int:
        """Number of GPUs, or processes on the CPU, on all machines."""
        return self.num_processes * self.context_parallel

    @property
    def asks_for_gpus(self) -> str:
        """The settings that ask for so many, for messages."""
        asked = f"train.num_processes is {self.num_processes}"
        return asked + (f" and train.context_parallel is {self.context_parallel}" if self.context_parallel > 1 else "")

    @property
    def gpus_per_machine(self) -> int:
        return self.gpus // self.num_machines

    @field_validator("dtype", mode="before")
    @classmethod
    def _no_half_training(cls, value: object) -> object:
        if value in ("float16", "fp16", "half"):
            raise ValueError(f"found '{value}': float16 overflows in training; use bfloat16, float32 or auto")
        return value

    def conflicts(self) -> Iterator[Conflict]:
        yield from super().conflicts()
        if self.blocks_to_swap and not self.gradient_checkpointing:
            text = "needs gradient_checkpointing: true, because the backward pass needs the swapped blocks again"
            yield ("blocks_to_swap",), text
        if self.gradient_checkpointing_cpu_offload and not self.gradient_checkpointing:
            yield ("gradient_checkpointing_cpu_offload",), "has no effect without gradient_checkpointing: true"
        if self.context_parallel > 1 and self.network_dropout:
            text = "needs network_dropout: 0, because its masks are drawn for all tokens at once; use rank_dropout"
            yield ("context_parallel",), text
        if self.shard_base:
            if self.gpus == 1:
                yield ("shard_base",), "has no effect on one GPU: set num_processes, too"
            for name, off in (("quantize", "none"), ("blocks_to_swap", 0), ("compile", False)):
                if getattr(self, name) != off:
                    yield ("shard_base",), f"does not work together with {name}: remove one of them"
        if self.ema_decay and self.averages_weights:
            text = f"has no use with {self.optimizer_type}, whose own average of the weights is the LoRA: set it to 0"
            yield ("ema_decay",), text
        if self.preview_average and not self.ema_decay:
            yield ("preview_average",), "has no effect without ema_decay: set it, too"
        if self.continue_from is not None and self.network_weights is not None:
            yield ("continue_from",), "network_weights is also set: keep one of them, as both bring weights"
        if self.max_train_steps is not None and (self.publish_step or 0) > self.max_train_steps:
            text = f"found {self.publish_step}, but the training ends after {self.max_train_steps} (max_train_steps)"
            yield ("publish_step",), text
        if self.attn_mode == "sage":
            text = "found 'sage', which computes in 8 bits and has no backward pass; it is only for sample.attn_mode"
            yield ("attn_mode",), text
        if self.max_train_steps is not None and self.lr_warmup_steps > self.max_train_steps:
            text = f"found {self.lr_warmup_steps}, expected at most max_train_steps ({self.max_train_steps})"
            yield ("lr_warmup_steps",), text
        elif self.max_train_steps is not None and self.lr_decay_steps is not None:
            left = self.max_train_steps - in_steps(self.lr_warmup_steps, self.max_train_steps)
            if in_steps(self.lr_decay_steps, self.max_train_steps) > left:
                text = f"found {self.lr_decay_steps}, but after the warm-up only {left} steps are left"
                yield ("lr_decay_steps",), text
