"""Plans that are computed in another process."""

from __future__ import annotations

import time
from dataclasses import dataclass
from multiprocessing import active_children

import psutil
import pytest

from hv15.plan.cost import Cost
from hv15.selftest.planned import PlannedCosts


@dataclass(frozen=True)
class Endless:
    def plan(self) -> Cost:
        time.sleep(1000)
        raise AssertionError


@pytest.mark.slow
def test_the_other_process_ends_with_the_plans() -> None:
    others = active_children()
    plans = PlannedCosts([Endless()])
    (process,) = set(active_children()).difference(others)
    handle = psutil.Process(process.pid)
    plans.close()
    assert psutil.wait_procs([handle], 60)[0], "it still runs"  # its exit code goes to whoever asks first
