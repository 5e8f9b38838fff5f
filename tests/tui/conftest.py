"""Runs tests that are coroutines, each in a loop of its own, and keeps what moves still."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import Iterator

import pytest

from tests.tui.idle import wait_so
from tui.garbage import NEVER, Garbage

SOON_S = 0.05
"""Stands for how long the dashboard lets a person type, and how often it looks."""
MUCH = 300
"""Searches among younger objects: those of some twenty dashboards."""
TIMEOUT_S = 300
"""Only what hangs takes so long, however busy the machine is."""


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine function; None leaves other functions to pytest."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = inspect.signature(pyfuncitem.obj).parameters
    given = {name: pyfuncitem.funcargs[name] for name in wanted}
    asyncio.run(asyncio.wait_for(pyfuncitem.obj(**given), TIMEOUT_S))
    return True


@pytest.fixture(scope="module", autouse=True)
def collector() -> Iterator[None]:
    """Garbage is searched for seldom: with all that Textual remembers, a full search takes as long as a test."""
    before = gc.get_threshold()
    gc.set_threshold(*before[:2], NEVER)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("begin", "end"):
            patch.setattr(Garbage, name, lambda _: None)
        yield
    if gc.get_count()[2] > MUCH:
        gc.collect()
        gc.freeze()
    gc.set_threshold(*before)


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """No animation, no setting of the machine that changes colours, and no guess whether all is done."""
    wait_so(monkeypatch)
    for name in ("screens.config.TYPING_S", "screens.dataset.REDRAW_S", "widgets.log_view.LOOK_S"):
        monkeypatch.setattr(f"tui.{name}", SOON_S)
    monkeypatch.setenv("TEXTUAL_ANIMATIONS", "none")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLORTERM", "truecolor")
