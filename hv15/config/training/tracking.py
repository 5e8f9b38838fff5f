"""The settings of `train:` for other programs that show its records."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hv15.config.section import WATCHING, Section

Tracker = Literal["tensorboard", "wandb"]


class TrackingSettings(Section):
    """Other programs that get the metrics, the previews and the config. They change nothing in the LoRA."""

    trackers: tuple[Tracker, ...] = Field((), json_schema_extra=WATCHING)
    """`tensorboard` writes into results/train/tensorboard. `wandb` (Weights & Biases) sends to your account if you are
    logged in, and else writes into results/train/wandb, for `wandb sync`. Both need `pip install 'hv15[trackers]'`."""

    tracker_project: str = Field("hv15", min_length=1, max_length=100, json_schema_extra=WATCHING)
    """The project's name in W&B."""
