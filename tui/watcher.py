"""Reads the project in threads and passes what it finds to the screen as typed messages.

The UI opens no file: a `WatchedSource` names what is read, how often, and the message it becomes. Only what the current
screen asks for (`DashboardScreen.READS`) is read, and each source by one thread at a time, so that its reader may
remember where it was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from textual.message import Message
from textual.screen import Screen

from tui.messages import SourceFailed
from tui.workers import run_beside

if TYPE_CHECKING:
    from tui.app import Dashboard

TICK_S = 0.5
"""Nothing is read more often."""

Value = TypeVar("Value")


@dataclass
class WatchedSource(Generic[Value]):
    """Something that is read again and again."""

    name: str
    read: Callable[[], Value | None]
    """Called in a thread; None when there is nothing new since the last call."""
    message: Callable[[Value], Message]
    interval_s: float = 1.0
    always: bool = False
    """Whether it is read on every screen, for the status line."""
    share: float = 1.0
    """The largest share of a core that it may take: a slow source is read less often than every `interval_s`."""
    due: float = field(default=0.0, init=False)
    reading: bool = field(default=False, init=False)
    again: bool = field(default=False, init=False)
    """Whether to read again right away, because the current read may have begun before a change."""
    value: Value | None = field(default=None, init=False, repr=False)  # Textual describes each worker by what it runs
    """The last thing read, for screens that are shown later."""
    error: str = field(default="", init=False)


AnySource: TypeAlias = WatchedSource[Any]
"""Each source has a value type of its own, which only it and its message know."""


class Watcher:
    """Runs the sources of an app."""

    def __init__(self, app: Dashboard, sources: Iterable[AnySource]) -> None:
        self._app = app
        self.sources: dict[str, AnySource] = {source.name: source for source in sources}

    def start(self) -> None:
        """Start watching. Called once, when the app is mounted."""
        self._app.set_interval(TICK_S, self.tick)
        self.tick()

    def tick(self) -> None:
        """Start reading what is due."""
        now = time.monotonic()
        wanted: frozenset[str] = getattr(self._shown, "READS", frozenset())
        for source in self.sources.values():
            if (source.always or source.name in wanted) and not source.reading and now >= source.due:
                self._begin(source)

    def refresh(self, *names: str) -> None:
        """Read these sources (all if none are named) at once, because something has just changed."""
        for source in self.sources.values():
            if not names or source.name in names:
                source.due, source.again = 0.0, source.reading
        self.tick()

    def replay(self) -> None:
        """Give the current screen what was read before it was shown, and read what it asks for."""
        if (screen := self._shown) is None:
            return
        for source in self.sources.values():
            if source.value is not None:
                screen.post_message(source.message(source.value))
        self.tick()

    @property
    def _shown(self) -> Screen[object] | None:
        """The screen that gets messages; None when the app is closing and has none any more."""
        return self._app.base_screen if self._app.screen_stack else None

    def _post(self, message: Message) -> None:
        if (screen := self._shown) is not None:
            screen.post_message(message)

    def _begin(self, source: WatchedSource[Value]) -> None:
        source.reading = True
        run_beside(self._app, partial(self._read, source), f"source-{source.name}")

    async def _read(self, source: WatchedSource[Value]) -> None:
        took = 0.0
        try:
            value, took = await asyncio.to_thread(_timed, source.read)
        except Exception as error:  # a reader's error is shown; the dashboard continues
            text = f"{type(error).__name__}: {error}"
            if text != source.error:
                source.error = text
                self._post(SourceFailed(source.name, text))
        else:
            source.error = ""
            if value is not None:
                source.value = value
                self._post(source.message(value))
        finally:
            source.reading = False
            wait = 0.0 if source.again else max(source.interval_s, took / source.share)
            source.due, source.again = time.monotonic() + wait, False


def _timed(read: Callable[[], Value]) -> tuple[Value, float]:
    """What was read, and the CPU seconds that it took."""
    began = time.thread_time()
    return read(), time.thread_time() - began
