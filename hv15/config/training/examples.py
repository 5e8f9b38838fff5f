"""The settings of `train:` for the use of clips and captions."""

from __future__ import annotations

from pydantic import Field

from hv15.config.section import PAST, Probability, Section


class ExampleSettings(Section):
    """How clips and captions are used."""

    i2v_prob: Probability = Field(1.0, json_schema_extra=PAST)
    """For task i2v: probability that a clip is trained with its first frame as the condition, else as text-to-video."""

    caption_dropout: Probability = Field(0.0, json_schema_extra=PAST)
    """Probability that a caption is replaced by an empty one, so that guidance still works after long trainings."""
