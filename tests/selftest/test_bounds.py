"""What is allowed follows from the number format, and the worst of several results is judged."""

from __future__ import annotations

import math

import pytest
import torch

from hv15.records.selftest import Measured
from hv15.selftest.bounds import MARGIN, bound, doubled, judged


def test_what_is_allowed() -> None:
    """In 16 bits so much as the reference itself is changed by rounding; in fp32 what the format gives."""
    assert bound(torch.bfloat16, 0.01, 100) == MARGIN * 0.01
    assert bound(torch.float16, None, 100) is None
    assert doubled(None) is None
    assert doubled(0.1) == pytest.approx(0.1 * math.sqrt(2))
    assert bound(torch.float32, None, 100) == pytest.approx(10 * 65 * 2**-24)


@pytest.mark.parametrize(
    ("pairs", "worst"),
    [
        ([], Measured()),
        ([(None, None), (None, 1.0)], Measured()),
        ([(0.2, 1.0), (0.1, 0.2), (0.3, 1.0)], Measured(error=0.1, bound=0.2)),
        ([(0.0, 0.0), (0.1, 1.0)], Measured(error=0.1, bound=1.0)),
        ([(1e-9, 0.0), (0.9, 1.0)], Measured(error=1e-9, bound=0.0)),
    ],
)
def test_the_worst_of_several(pairs: list[tuple[float | None, float | None]], worst: Measured) -> None:
    assert judged(pairs) == worst


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_result_that_is_no_number_is_the_worst(place: int) -> None:
    pairs = [(5.0, 1.0), (6.0, 1.0)]
    pairs.insert(place, (math.nan, 1.0))
    assert math.isnan(judged(pairs).error or 0.0)
