"""The settings of `train:` for the samples that are made while it runs."""

from __future__ import annotations

from pydantic import Field

from hv15.config.section import WATCHING, Few, Frames, Many, PixelSize, Section


class PreviewSize(Section):
    """What differs between previews and final samples; a setting that is not set is as in the final sample."""

    infer_steps: Few | None = None
    """Number of denoising steps."""

    video_length: Frames | None = None
    """Number of frames, 4k+1; 1 = a still image."""

    video_size: tuple[PixelSize, PixelSize] | None = None
    """[height, width] in pixels, multiples of 16."""


class PreviewSettings(Section):
    """Samples that are made while training. They change nothing in the LoRA."""

    preview_every_n_steps: Many | None = Field(None, json_schema_extra=WATCHING)
    """Make samples every so many steps, with the LoRA as it is then. Each takes as long as the final sample."""

    preview_every_n_epochs: Many | None = Field(None, json_schema_extra=WATCHING)
    """Make samples every so many epochs."""

    preview_at_first: bool = Field(False, json_schema_extra=WATCHING)
    """Also make samples before the first step."""

    previews: tuple[str, ...] = Field((), json_schema_extra=WATCHING)
    """Names of the prompts in `sample.prompts` that are sampled while training; all if not set."""

    preview_average: bool = Field(False, json_schema_extra=WATCHING)
    """Sample with the moving average of the LoRA (`ema_decay`) instead of the LoRA itself."""

    preview: PreviewSize = Field(PreviewSize(), json_schema_extra=WATCHING)
    """Smaller or quicker than the final samples."""
