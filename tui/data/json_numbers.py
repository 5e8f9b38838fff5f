"""Numbers from lines of JSON that may hold anything: NaN stands for what is not a number."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hv15.records.json_values import Json, JsonObject


def number(value: Json) -> float:
    """A number, or NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def numbers(lines: Sequence[JsonObject], name: str) -> NDArray[np.float64]:
    """One field of all lines, NaN where it is not a number."""
    values = [line.get(name) for line in lines]
    try:
        return np.array(values, np.float64)  # None is NaN
    except (ValueError, TypeError, OverflowError):
        return np.array([number(value) for value in values])


def lists(lines: Sequence[JsonObject], name: str, length: int) -> NDArray[np.float64]:
    """One field of all lines that holds lists of numbers, as [R, length]; NaN where there is none."""
    values = [line.get(name) for line in lines]
    if not any(values):
        return np.full((len(lines), length), np.nan)
    try:
        found = np.array(values, np.float64)
        if found.shape == (len(lines), length):
            return found
    except (ValueError, TypeError, OverflowError):
        pass
    return np.array([[_entry(each, place) for place in range(length)] for each in values])


def _entry(values: Json, place: int) -> float:
    return number(values[place]) if isinstance(values, list) and place < len(values) else math.nan
