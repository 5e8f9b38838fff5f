"""One job of the workflow: what it makes, what that has to be made from, and what it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from hv15.records.json_values import JsonObject
from hv15.records.stage_names import rule_of, run_of, subject_of


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
    """Rule and wildcard, after the experiment if it is of one: `train`, `sample_video.NAME`, `small/train`."""
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
    follows: tuple[str, ...] = ()
    """The names of inputs with which it is made again whenever one of them is."""
    is_former: bool = False
    """Whether it is of an experiment that is not planned, and is there to be copied."""
    is_untaken: bool = False
    """Whether the job of a shard has made the product, and the stage's own job has not taken it yet."""

    @property
    def run(self) -> str:
        """The experiment that it belongs to; "" for the base config."""
        return run_of(self.name)

    @property
    def rule(self) -> str:
        return rule_of(self.name)

    @property
    def subject(self) -> str:
        """The wildcard: a sample's name, a shard, a layout."""
        return subject_of(self.name)


def compare(root: Path, products: Sequence[Path], recorded: JsonObject | None, wanted: JsonObject) -> Found:
    """Return how products are found.

    Args:
        root: the project folder, where their paths start.
        recorded: what they say they were made from; None if they do not say it, or are not there.
    """
    if recorded is None or not all((root / product).exists() for product in products):
        return Found.MISSING
    return Found.RIGHT if recorded == wanted else Found.WRONG


def in_project(path: Path, root: Path) -> Path:
    """Return a path as the rules name it: relative to the project folder if it is inside."""
    return path.relative_to(root) if path.is_relative_to(root) else path
