"""Numbers out of lines of JSON that may hold anything: what is no number is NaN."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tui.data.curves import BINS


def number(value: Any) -> float:
    """A number, or NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def known(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    found = number(value)
    return found if math.isfinite(found) else None


def numbers(records: Sequence[dict[str, Any]], name: str) -> NDArray[Any]:
    """One field of all records, NaN where it is no number."""
    values = [record.get(name) for record in records]
    try:
        return np.array(values, np.float64)  # None is NaN
    except (ValueError, TypeError, OverflowError):
        return np.array([number(value) for value in values])


def bins(records: Sequence[dict[str, Any]]) -> NDArray[Any]:
    """The losses by sigma of all records [R, BINS], NaN where a bin is empty."""
    values = [record.get("loss_by_sigma") for record in records]
    if not any(values):
        return np.full((len(records), BINS), np.nan)
    try:
        found = np.array(values, np.float64)
        if found.shape == (len(records), BINS):
            return found
    except (ValueError, TypeError, OverflowError):
        pass
    return np.array([[_entry(each, place) for place in range(BINS)] for each in values])


def _entry(values: Any, place: int) -> float:
    return number(values[place]) if isinstance(values, list) and place < len(values) else math.nan
