"""A stage: one job of the workflow, with what it makes and what that has to be made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from hv15.records.json_values import JsonObject


class Found(Enum):
    """The state in which a stage's product was found."""

    RIGHT = "right"
    MISSING = "missing"
    """Not there, or unreadable: torn, or of another version. It is made again when something needs it."""
    WRONG = "wrong"
    """There, but made from something else."""


@dataclass(frozen=True)
class Stage:
    """One job of the workflow."""

    name: str
    """Rule and wildcard: `train`, `sample_video.NAME`. Its spec and its log have the same name."""
    products: tuple[Path, ...]
    """Relative to the project folder, as Snakemake names them."""
    wanted: JsonObject
    """What the products have to be made from."""
    found: Found
    recorded: JsonObject | None = None
    """What the product was made from, as it records itself."""
    inputs: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    """Products of other stages that it reads, by the name that the rule knows them by."""
    details: JsonObject = field(default_factory=dict)
    """What else the job has to know."""
    is_always_made: bool = False
    """Whether a missing product is made even if no stage that runs reads it."""
    is_untaken: bool = False
    """Whether the job of a shard has made the product, and the stage's own job has not taken it yet."""

    @property
    def rule(self) -> str:
        return self.name.partition(".")[0]

    @property
    def subject(self) -> str:
        """The wildcard: a sample's name, a shard, a layout."""
        return self.name.partition(".")[2]
