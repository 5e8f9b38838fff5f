"""The settings of `train:` for the LoRA itself."""

from __future__ import annotations

from pydantic import PositiveFloat, field_validator

from hv15.config.section import DropoutRate, Few, PathText, Section
from hv15.patterns import PatternError, compile_pattern


class NetworkSettings(Section):
    """The LoRA: its size, its layers, its dropout."""

    network_dim: Few = 32
    """Rank of the LoRA. 8-16 for a style or a small dataset, 32-64 for characters and motion. The file's size is
    proportional to it."""

    network_alpha: PositiveFloat = 32.0
    """Strength of the LoRA: its output is scaled by network_alpha / network_dim."""

    network_dropout: DropoutRate = 0.0
    """Fraction of the values between the LoRA's two matrices that is zeroed in training, against overfitting."""

    rank_dropout: DropoutRate = 0.0
    """Fraction of the LoRA's ranks that is zeroed in training."""

    module_dropout: DropoutRate = 0.0
    """Probability that a layer is used without its LoRA in a training step."""

    include_patterns: tuple[str, ...] = ()
    """Regular expressions. If there are any, only layers whose names contain a match get a LoRA, e.g. img_attn."""

    exclude_patterns: tuple[str, ...] = ()
    """Regular expressions. Layers whose names contain a match get no LoRA, e.g. _mod; overrides include_patterns."""

    network_weights: PathText | None = None
    """A LoRA file to start from, instead of a new one."""

    @field_validator("include_patterns", "exclude_patterns")
    @classmethod
    def _patterns_compile(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            try:
                compile_pattern(pattern)
            except PatternError as error:
                raise ValueError(f"{pattern!r:.200} is not a regular expression: {error}") from None
        return value
