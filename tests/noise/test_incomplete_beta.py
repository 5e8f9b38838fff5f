"""Against scipy, which computes it in another way."""

from __future__ import annotations

import itertools

import pytest
from scipy import special

from hv15.noise.incomplete_beta import incomplete_beta


@pytest.mark.parametrize(("a", "b"), itertools.product((0.05, 0.5, 1.0, 2.0, 7.5, 100.0), repeat=2))
def test_it_is_scipys(a: float, b: float) -> None:
    for x in (1e-12, 1e-3, 0.02, 0.3, 0.5, 0.77, 0.99, 1 - 1e-6):
        assert incomplete_beta(a, b, x) == pytest.approx(special.betainc(a, b, x), rel=1e-11, abs=1e-300)


def test_its_ends() -> None:
    assert [incomplete_beta(2, 3, x) for x in (-0.1, 0, 1, 1.1)] == [0, 0, 1, 1]
