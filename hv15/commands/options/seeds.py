"""Seeds on a command line: numbers, or `random` for one that is drawn once and then known."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import Sequence

from hv15.errors import UserError
from hv15.ranks import is_rank

HIGHEST = 2**63
"""Above all seeds."""
_DRAWN_BELOW = 2**32
"""Drawn seeds are shorter, so that people can copy them."""
_VARIABLE = "HV15_SEEDS"
"""Tells the ranks that a command starts its seeds, of which some were drawn."""


class DrawnSeed(int):
    """A seed that nobody has chosen."""


def read_seed(text: str) -> int:
    """Read a seed, or draw one for `random`.

    Raises:
        argparse.ArgumentTypeError: it is neither.
    """
    if text == "random":
        return DrawnSeed(secrets.randbelow(_DRAWN_BELOW))
    if not text.isdecimal() or len(text) > 20 or int(text) >= HIGHEST:
        raise argparse.ArgumentTypeError(f"{text!r:.60}: expected a whole number from 0, or random")
    return int(text)


def agreed_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """Return the seeds that all processes of a command use, and say which were drawn.

    Raises:
        UserError: this is one of several processes that were started apart, which have drawn different ones.
    """
    if not any(isinstance(seed, DrawnSeed) for seed in seeds):
        return tuple(seeds)
    if is_rank():
        if (known := os.environ.get(_VARIABLE)) is None:
            raise UserError(
                "--seed random: each of the processes that were started would draw another one",
                hint="let hv15 start them (sample.context_parallel), or give a number",
            )
        return tuple(map(int, known.split(",")))
    os.environ[_VARIABLE] = ",".join(str(int(seed)) for seed in seeds)
    for seed in seeds:
        if isinstance(seed, DrawnSeed):
            print(f"seed {int(seed)}, drawn at random", file=sys.stderr)
    return tuple(map(int, seeds))
