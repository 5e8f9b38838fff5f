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


def all_of(keys: Iterable[str], outcome: Outcome, why: str = "") -> Verdicts:
    """Return one verdict for several tensors."""
    return dict.fromkeys(keys, Verdict(outcome, why))


def times(factor: float) -> str:
    """Return a strength in words: "0.333 times as strong"."""
    return f"{factor:.4g} times as strong"
