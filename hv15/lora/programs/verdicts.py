"""What may happen to a tensor of a LoRA file in a program."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

Outcome = Literal["loads", "dropped", "wrong", "stops"]
"""Used as it is meant; left out, often without a word; used at another strength or as another change; an error."""
OUTCOMES: tuple[Outcome, ...] = ("stops", "wrong", "dropped", "loads")
"""The worst first."""


class Verdict(NamedTuple):
    """What a program does with one tensor, and why."""

    outcome: Outcome
    why: str = ""


Verdicts = dict[str, Verdict]
"""By the tensor's name in the file."""

LOADS = Verdict("loads")

NO_LAYER = "it is no layer of HunyuanVideo 1.5"
LOST_MAGNITUDES = "it is a DoRA, and its magnitudes are dropped"


def all_of(keys: Iterable[str], outcome: Outcome, why: str = "") -> Verdicts:
    """Return one verdict for several tensors."""
    return dict.fromkeys(keys, Verdict(outcome, why))


def no_kind(program: str) -> str:
    """Say that a tensor is of no kind that a program knows."""
    return f"it is of no kind that {program} knows"


def other_name(program: str) -> str:
    """Say that a program calls a layer otherwise."""
    return f"{program} has another name for this layer"


def lost_strength(program: str, meant: float) -> str:
    """Say that a program takes 1 instead of the strength that is meant."""
    return f"its strength is in the metadata, which {program} does not read: {times(1 / meant)}"


def times(factor: float) -> str:
    """Return a strength in words: "0.333 times as strong"."""
    return f"{factor:.4g} times as strong"
