"""Numbers on a command line."""

from __future__ import annotations

import argparse
import math


def finite(text: str) -> float:
    """Read a finite number.

    Raises:
        argparse.ArgumentTypeError: it is something else.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r:.60}: expected a finite number")
    return number
