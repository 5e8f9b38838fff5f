"""Runs tests that are coroutines, each in a loop of its own, and keeps what moves still."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from tests.tui.idle import wait_so

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


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """No animation, no setting of the machine that changes colours, and no guess whether all is done."""
    wait_so(monkeypatch)
    monkeypatch.setenv("TEXTUAL_ANIMATIONS", "none")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLORTERM", "truecolor")
