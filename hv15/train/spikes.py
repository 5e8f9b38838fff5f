"""Finds steps whose loss or gradient is far above what is usual: often the sign of a bad clip or of a high rate.

A number is a spike if its logarithm is far above the median of those before it, measured by their median absolute
deviation (Hampel's identifier), and if it is several times as large.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from statistics import median

WINDOW = 200
"""Steps that say what is usual."""
WARM_UP = 50
"""Steps before the first spike: a new LoRA changes quickly."""
DEVIATIONS = 6.0
"""Least distance from the median, in standard deviations of a normal distribution with the same median deviation."""
TIMES = 3.0
"""Least size, in medians."""
_NORMAL = 1.4826
"""Standard deviation of a normal distribution, in median absolute deviations."""


@dataclass
class Usual:
    """The last values of a positive number, and whether a further one is a spike."""

    _logs: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _was_spike: bool = False

    def judge(self, value: float) -> float | None:
        """Take a finite value; return the usual one if this is a spike and the value before was not, else None."""
        if value <= 0:
            return None
        log, spike, centre = math.log(value), False, 0.0
        if len(self._logs) >= WARM_UP:
            centre = median(self._logs)
            deviation = _NORMAL * median(abs(each - centre) for each in self._logs)
            spike = log - centre > max(DEVIATIONS * deviation, math.log(TIMES))
        first, self._was_spike = spike and not self._was_spike, spike
        self._logs.append(log)
        return math.exp(centre) if first else None
