"""SIGTERM and a closed terminal end a command as an error does, so that it removes what it has half written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from hv15.ranks import is_rank

_ENDING = (signal.SIGTERM, signal.SIGHUP)


class AskedToEnd(BaseException):
    """A signal asks the process to end."""


@contextmanager
def tidy_end() -> Iterator[None]:
    """Run the `finally` of what is under way when a signal asks the process to end; then it ends by that signal.

    A second SIGTERM ends it at once. Under nohup a closed terminal asks for nothing. A rank ends at once, as the others
    may be waiting for it, and what handles these signals itself, such as a training, does so meanwhile.
    """
    if is_rank() or threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = list[int]()

    def ask(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the shell and the kernel each send one
        asked.append(number)
        raise AskedToEnd

    before = {number: signal.signal(number, ask) for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL}
    try:
        yield
    except AskedToEnd:
        pass
    finally:
        for number in before:
            signal.signal(number, signal.SIG_DFL)
    if asked:
        signal.raise_signal(asked[0])
