"""How a command line says where LoRAs act and how strongly, as `sample.loras` does in a config."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Annotated, NamedTuple, TypeAlias

from hv15.arguments import Argument
from hv15.records.json_values import Json, JsonObject


class FactorRange(NamedTuple):
    """A factor on the strength of LoRAs in a range of blocks, or of parts of the steps, given as BEGIN-END:FACTOR."""

    begin: float
    end: float
    factor: float


def read_blocks(text: str) -> FactorRange:
    """Read 0-19:0.5, or 7:0 for one block.

    Raises:
        argparse.ArgumentTypeError: it is something else.
    """
    where, _, factor = text.rpartition(":")
    first, dash, last = where.partition("-")
    last = last if dash else first
    if not all(number.isdecimal() and len(number) <= 4 for number in (first, last)) or not _is_number(factor):
        raise argparse.ArgumentTypeError(f"{text!r:.60}: expected blocks and a factor such as 0-19:0.5")
    return FactorRange(int(first), int(last), float(factor))


def read_steps(text: str) -> FactorRange:
    """Read 0.5-1:0, the second half of the steps at a factor of 0.

    Raises:
        argparse.ArgumentTypeError: it is something else.
    """
    where, _, factor = text.rpartition(":")
    begin, _, end = where.partition("-")
    if not all(map(_is_number, (begin, end, factor))):
        raise argparse.ArgumentTypeError(f"{text!r:.60}: expected a part of the steps and a factor such as 0.5-1:0")
    return FactorRange(float(begin), float(end), float(factor))


IncludePatterns: TypeAlias = Annotated[
    tuple[str, ...],
    Argument(
        "the LoRAs act only on layers whose names contain a match of one of these regular expressions",
        flags=("--include", "--include_patterns"),
        metavar="PATTERN",
        several="+",
    ),
]
ExcludePatterns: TypeAlias = Annotated[
    tuple[str, ...],
    Argument(
        "and not on layers whose names contain a match of these",
        flags=("--exclude", "--exclude_patterns"),
        metavar="PATTERN",
        several="+",
    ),
]
BlockFactors: TypeAlias = Annotated[
    tuple[FactorRange, ...],
    Argument(
        "factors on the LoRAs' strength in blocks: 0-19:0.5", metavar="RANGE:FACTOR", several="+", read=read_blocks
    ),
]
StepFactors: TypeAlias = Annotated[
    tuple[FactorRange, ...],
    Argument(
        "factors on their strength in parts of the steps: 0.5-1:0",
        metavar="RANGE:FACTOR",
        several="+",
        read=read_steps,
    ),
]


def reach_settings(
    include: Sequence[str], exclude: Sequence[str], blocks: Sequence[FactorRange], steps: Sequence[FactorRange]
) -> JsonObject:
    """Return what was given as settings of a LoRA in `sample.loras`; empty if nothing was."""
    by: list[Json] = [{"blocks": [int(each.begin), int(each.end)], "factor": each.factor} for each in blocks]
    by += [{"steps": [each.begin, each.end], "factor": each.factor} for each in steps]
    given: JsonObject = {"include_patterns": [*include], "exclude_patterns": [*exclude], "strength_by": by}
    return {name: value for name, value in given.items() if value}


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
