"""SIGTERM and a closed terminal end the dashboard and its helper processes at once; a run continues."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tui.app import Dashboard

ENDING = (signal.SIGTERM, signal.SIGHUP)
PATIENCE_S = 1.5
"""How long leaving may take; after that, it does not wait for threads or a terminal that is gone."""


def listen(app: Dashboard) -> None:
    """End the app on these signals, from now until its event loop ends. In the main thread only."""
    loop = asyncio.get_running_loop()
    for number in ENDING:
        loop.add_signal_handler(number, end, app, number)


def leave_at_once(code: int) -> None:
    """End the process if a signal has ended the dashboard, without Python's usual clean-up of all that was loaded."""
    if code in {128 + number for number in ENDING}:
        with contextlib.suppress(OSError):  # the terminal may be gone
            sys.stdout.flush()
        os._exit(code)


def end(app: Dashboard, number: int) -> None:
    """End the app as this signal does; SIGHUP: without writing anything more."""
    code = 128 + number
    last = threading.Timer(PATIENCE_S, os._exit, [code])
    last.daemon = True
    last.start()
    if number == signal.SIGHUP:
        _forget_terminal(app)
    app.exit(return_code=code)


def _forget_terminal(app: Dashboard) -> None:
    """Write nothing more: Textual's writing thread dies when the terminal is gone, and its queue soon fills up."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    driver = app._driver
    if driver is not None:
        driver.write = lambda data: None  # type: ignore[method-assign]  # the terminal is closed
