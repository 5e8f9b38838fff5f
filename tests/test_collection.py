"""A plan's lasting objects are not looked through again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from hv15.collection import MANY, collect_rarely, paused_collection


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)  # Python's own, whatever earlier tests of this process have planned
    yield
    gc.set_threshold(*before)
    gc.enable()
    gc.unfreeze()


def collections() -> int:
    return int(gc.get_stats()[0]["collections"])


def test_a_process_that_plans_collects_rarely() -> None:
    gc.collect()
    before = collections()
    kept = [[] for _ in range(MANY // 2)]
    often = collections() - before
    collect_rarely()
    before = collections()
    kept += [[] for _ in range(MANY // 2)]
    assert (often > 10, collections() - before) == (True, 0)
    assert gc.get_freeze_count() > MANY // 2, "what was there is left out"
    garbage: list[object] = []
    garbage.append(garbage)
    del garbage
    kept += [[] for _ in range(MANY)]
    assert collections() > before, "it does collect"


def test_collection_is_paused_and_goes_on() -> None:
    with paused_collection():
        assert not gc.isenabled()
    assert gc.isenabled()
