"""The settings of `train:` for the moving average of the LoRA."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hv15.config.section import PAST, SPEED, UNLESS_DEFAULT, Section


class AveragingSettings(Section):
    """The moving average of the LoRA."""

    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.0, json_schema_extra=PAST | UNLESS_DEFAULT)
    """Also keep an average of the LoRA over its last steps (EMA), which is often smoother than the LoRA itself, as
    results/lora.ema.safetensors and beside each copy. It spans about 1 / (1 - ema_decay) steps: 0.99 or 0.995 for a
    thousand steps, 0.999 for ten thousand. 0 turns it off."""

    ema_device: Literal["model", "cpu"] = Field("model", json_schema_extra=SPEED)
    """Where the average is: on the model's device, or in the machine's memory. It is as large as the LoRA in fp32."""
