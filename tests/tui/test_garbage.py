"""Full searches for garbage come when nobody types, and Python's own are back when the dashboard is closed."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tui.recorded import dashboard, replay_at
from tui import garbage
from tui.garbage import EVERY_S, LATEST_S, QUIET_S, Garbage


class Cycle:
    """Garbage that only a search finds."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """As in the program; what other tests have left or imported is not looked through."""
    gc.freeze()
    yield
    gc.freeze()


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


@pytest.fixture
def searching(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> Iterator[Garbage]:
    monkeypatch.setattr(garbage, "YOUNG", 0)
    found = Garbage(lambda: clock[0])
    found.begin()
    yield found
    found.end()


def test_a_search_waits_until_nobody_types(searching: Garbage, clock: list[float]) -> None:
    old = Cycle()
    gc.collect(1)  # from now on only a full search finds it
    lost = weakref.ref(old)
    del old
    clock[0] += EVERY_S
    searching.note_input()
    clock[0] += QUIET_S / 2
    assert not searching.search_if_due()
    assert lost() is not None
    clock[0] += QUIET_S
    assert searching.search_if_due()
    assert lost() is None
    clock[0] += EVERY_S / 2
    assert not searching.search_if_due(), "a search had been only just"


def test_typing_without_end_puts_it_off_for_a_while_only(searching: Garbage, clock: list[float]) -> None:
    clock[0] += LATEST_S
    searching.note_input()
    assert searching.search_if_due()
    searching.note_input()
    assert not searching.search_if_due()


def test_few_new_objects_are_no_reason(clock: list[float]) -> None:
    found = Garbage(lambda: clock[0])
    gc.collect()
    clock[0] += 10 * LATEST_S
    assert not found.search_if_due()


def test_the_dashboard_gives_it_back(tmp_path: Path) -> None:
    before = gc.get_threshold()

    async def run() -> None:
        with replay_at(tmp_path / "demo", 0.5) as replay:
            app = dashboard(replay.root)
            async with app.run_test() as pilot:
                await pilot.pause()
                assert gc.get_threshold()[2] == garbage.NEVER
                assert gc.get_freeze_count() > 10_000

    asyncio.run(run())
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
