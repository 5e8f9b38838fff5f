"""The regularised incomplete beta function: the cumulative probability of a beta distribution."""

from __future__ import annotations

import math

_TINY = 1e-300
"""In place of a zero denominator."""
_MOST_TERMS = 10_000
"""Far more than needed: the parameters that settings allow need a few times the square root of the larger one."""


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Return I_x(a, b), the probability that a beta distributed number is at most `x`.

    Args:
        a, b: the distribution's parameters, above 0.
        x: from 0 to 1.

    Source: DLMF 8.17.22, a continued fraction that converges fast for x < (a+1)/(a+b+2), evaluated from the front
    (modified Lentz algorithm; Thompson and Barnett 1986); for larger x by I_x(a, b) = 1 - I_(1-x)(b, a) (8.17.4).
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, 1 - x)
    log_front = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(log_front) / a * _continued_fraction(a, b, x)


def _continued_fraction(a: float, b: float, x: float) -> float:
    """1 / (1 + d1 / (1 + d2 / (1 + ...))), with DLMF's coefficients d."""
    value = numerator = 1.0
    reciprocal = 0.0  # of the denominator
    for term in range(1, _MOST_TERMS):
        m = term // 2
        if term % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        reciprocal = 1 / (1 + d * reciprocal or _TINY)
        numerator = 1 + d / numerator or _TINY
        value *= numerator * reciprocal
        if abs(numerator * reciprocal - 1) < 1e-15:
            break
    return 1 / value
