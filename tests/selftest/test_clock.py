"""What other programs take does not count as the time of an operation."""

from __future__ import annotations

import pytest

from hv15.selftest.clock import Clock


def test_the_fastest_call_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that take 0.3, 0.2, 0.9, 0.1, ... seconds: the first is not counted, the second says how many follow."""
    durations = iter([0.3, 0.2, 0.9, 0.1, 0.5, 0.4, 0.7])
    now = 0.0

    def work() -> None:
        nonlocal now
        now += next(durations)

    monkeypatch.setattr("hv15.selftest.clock.perf_counter", lambda: now)
    assert Clock().seconds(work) == pytest.approx(0.1)
    assert list(durations) == []
