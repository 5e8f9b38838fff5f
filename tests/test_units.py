"""Sizes as people read them."""

from __future__ import annotations

import pytest

from hv15.units import size


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (10 * 2**20, "10 MiB"),
        (1.5 * 2**30, "1.5 GiB"),
        (-3 * 2**30, "-3.0 GiB"),
        (2**60, "1048576 TiB"),
    ],
)
def test_a_size_has_two_or_three_digits(count: float, words: str) -> None:
    assert size(count) == words
