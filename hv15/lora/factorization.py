"""How a LoKr divides the sides of a weight: (out, in) = (a * c, b * d) for w1 (a, b) and w2 (c, d). Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable

Matrix = tuple[int, int]
"""Rows and columns of a matrix."""


def factorization(dimension: int, factor: int) -> tuple[int, int]:
    """Divide `dimension` into two numbers whose product it is, as PEFT's function of this name does for w1 and w2.

    Args:
        factor: the first number if it divides `dimension`. Otherwise the numbers are as close to each other as possible
            with the smaller one first and at most `factor`; -1 means no limit.
    """
    if factor > 0 and dimension % factor == 0:
        return factor, dimension // factor
    limit = dimension if factor == -1 else factor
    small = max(each for each in range(1, int(dimension**0.5) + 1) if dimension % each == 0 and each <= limit)
    return small, dimension // small


def lokr_matrices(rows: int, columns: int, factor: int) -> tuple[Matrix, Matrix]:
    """Return the sizes of w1 and w2 for a weight, as LyCORIS chooses them: the smaller number is always w1's."""
    (a, c), (b, d) = (sorted(factorization(side, factor)) for side in (rows, columns))
    return (a, b), (c, d)


def common_factor(sizes: Iterable[tuple[Matrix, Matrix]]) -> int | None:
    """Return the factor with which PEFT divides all weights into these sizes of w1 and w2; None if there is none."""
    wanted = set(sizes)
    # If the factor divides a layer's rows, it is the number of w1's rows; -1 means the most even division to PEFT.
    candidates = [*sorted({w1[0] for w1, _ in wanted}), -1]
    return next((each for each in candidates if all(divides_into(each, *size) for size in wanted)), None)


def divides_into(factor: int, w1: Matrix, w2: Matrix) -> bool:
    """Whether PEFT divides a weight's rows and columns into exactly these sizes of w1 and w2 with a factor."""
    return all(factorization(outer * inner, factor) == (outer, inner) for outer, inner in zip(w1, w2, strict=True))
