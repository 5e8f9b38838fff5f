"""Where a LoRA acts on a sample, and how strongly: layers by pattern, factors by block and by step. Needs no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

from hv15.config.loras import SampledLoraSettings
from hv15.errors import UserError
from hv15.lora.names import chosen_by_patterns
from hv15.records.json_values import JsonObject

_BLOCK = re.compile(r"double_blocks\.(\d+)\.")


@dataclass(frozen=True)
class StrengthPart:
    """A factor on a LoRA's strength in some blocks, in some steps of a sample, or in these blocks in these steps."""

    factor: float
    blocks: tuple[int, int] | None = None
    """First and last, from 0; None means all layers, including those outside of the blocks."""
    steps: tuple[float, float] | None = None
    """Begin and end as parts of the number of steps, such as (0.5, 1.0) for the second half; None means all steps."""

    def has_layer(self, name: str) -> bool:
        """Whether it is for a layer, by its official name."""
        if self.blocks is None:
            return True
        block = _BLOCK.match(name)
        return block is not None and self.blocks[0] <= int(block[1]) <= self.blocks[1]

    def steps_of(self, count: int) -> range:
        """The steps that it is for, from 0, of a sample of so many."""
        if self.steps is None:
            return range(count)
        return range(round(self.steps[0] * count), round(self.steps[1] * count))

    def to_json(self) -> JsonObject:
        """Return it as in a config, without what is not set."""
        parts: JsonObject = {}
        if self.blocks is not None:
            parts["blocks"] = [*self.blocks]
        if self.steps is not None:
            parts["steps"] = [*self.steps]
        return {**parts, "factor": self.factor}


@dataclass(frozen=True)
class Reach:
    """On which of its layers a LoRA acts, and by which factors its strength differs there; all factors are multiplied.

    A layer on which it does not act, and one with a factor of 0, computes exactly as without the LoRA.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    """Regular expressions that are searched in the official names of the layers, as in a training."""
    strength_by: tuple[StrengthPart, ...] = ()

    @classmethod
    def from_settings(cls, settings: SampledLoraSettings) -> Reach:
        parts = tuple(StrengthPart(each.factor, each.blocks, each.steps) for each in settings.strength_by)
        return cls(settings.include_patterns, settings.exclude_patterns, parts)

    def layers(self, names: Sequence[str]) -> list[str]:
        """Return the layers on which a LoRA acts, of all that it could change, by official name.

        Raises:
            UserError: a pattern is found in none of them, a range of blocks has none of them, or none is left.
        """
        chosen = chosen_by_patterns(names, self.include, self.exclude)
        if not chosen:
            raise UserError(
                f"exclude_patterns: none of the {len(names)} layers that the LoRA changes is left: include_patterns "
                f"{list(self.include)}, exclude_patterns {list(self.exclude)}",
                hint="loosen the patterns, or leave the LoRA out",
            )
        for part in self.strength_by:
            if part.blocks is not None and not any(map(part.has_layer, chosen)):
                raise UserError(
                    f"strength_by: blocks {list(part.blocks)} have none of the {len(chosen)} layers on which the LoRA "
                    f"acts, which are in {_blocks_of(chosen)}",
                    hint="correct the range: first and last block, from 0",
                )
        return chosen

    def check_steps(self, count: int) -> None:
        """Check that each range of steps has some of a sample of so many.

        Raises:
            UserError: one has none.
        """
        for part in self.strength_by:
            if not part.steps_of(count):
                raise UserError(
                    f"strength_by: steps {list(part.steps or ())} are none of {count} steps",
                    hint="give a longer part: begin and end from 0 to 1, such as [0.5, 1.0] for the second half",
                )

    def factor_in_all_steps(self, name: str) -> float:
        """Return the factor on the strength in a layer, by official name.

        Raises:
            UserError: it differs from step to step.
        """
        parts = [part for part in self.strength_by if part.has_layer(name)]
        if any(part.steps is not None for part in parts):
            raise UserError(
                "strength_by: a strength in some steps only cannot be merged into weights, which all steps share",
                hint="use the LoRA beside the weights, in `sample.loras` or with `hv15 sample --lora`",
            )
        return prod(part.factor for part in parts)

    def to_json(self) -> JsonObject:
        """Return it as in a config, without what is not set: {} for a LoRA that acts everywhere in all steps."""
        given: JsonObject = {
            "include_patterns": [*self.include],
            "exclude_patterns": [*self.exclude],
            "strength_by": [part.to_json() for part in self.strength_by],
        }
        return {name: value for name, value in given.items() if value}


EVERYWHERE = Reach()
"""All layers, in all steps, with one strength."""


def _blocks_of(names: Iterable[str]) -> str:
    """Say in which blocks layers are."""
    numbers = sorted({int(found[1]) for name in names if (found := _BLOCK.match(name))})
    return f"blocks {numbers[0]} to {numbers[-1]}" if numbers else "no block"
