"""A LoRA file and its strength, as several sections name it; and, for samples, where it acts."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import field_validator

from hv15.config.ordered import check_pattern
from hv15.config.section import Block, Conflict, Part, PathText, Section


class LoraSettings(Section):
    """A LoRA file that is used in addition to the trained one."""

    path: PathText
    """The LoRA file, in any format that `hv15 convert` reads."""

    multiplier: float = 1.0
    """Its strength: 1 = as trained, 0 = off, negative = the opposite."""


class StrengthPartSettings(Section):
    """A factor on a LoRA's strength in some blocks, in some steps, or in these blocks in these steps."""

    blocks: tuple[Block, Block] | None = None
    """[first, last] block, counted from 0 to 53; all layers if not set."""

    steps: tuple[Part, Part] | None = None
    """[begin, end] as parts of the denoising steps, from 0 to 1: [0.5, 1.0] is the second half. All steps if not
    set. The first steps decide the layout, the last ones details."""

    factor: float
    """The LoRA's strength there is its `multiplier` times this: 1 = unchanged, 0 = off."""

    def conflicts(self) -> Iterator[Conflict]:
        yield from super().conflicts()
        if self.blocks is None and self.steps is None:
            yield (), "expected blocks, steps, or both; for a LoRA as a whole, set its multiplier"
        if self.blocks is not None and self.blocks[0] > self.blocks[1]:
            yield ("blocks",), f"found {list(self.blocks)}, expected the first block before the last"
        if self.steps is not None and self.steps[0] >= self.steps[1]:
            yield ("steps",), f"found {list(self.steps)}, expected the begin before the end, as [0.5, 1.0]"


class SampledLoraSettings(LoraSettings):
    """A LoRA file that is used in samples, in addition to the trained one."""

    include_patterns: tuple[str, ...] = ()
    """Regular expressions. If there are any, the LoRA acts only on layers whose names contain a match, e.g. img_attn.
    Names are the official ones, whatever the file's."""

    exclude_patterns: tuple[str, ...] = ()
    """Regular expressions. The LoRA does not act on layers whose names contain a match; overrides include_patterns."""

    strength_by: tuple[StrengthPartSettings, ...] = ()
    """Factors on its strength by block and by step: a list such as [{blocks: [0, 19], factor: 0.5}, {steps: [0.5, 1.0],
    factor: 0}]. Where several apply, all are multiplied."""

    @field_validator("include_patterns", "exclude_patterns")
    @classmethod
    def _patterns_compile(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            check_pattern(pattern)
        return value
