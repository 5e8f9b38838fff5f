"""A check of the self-test, and how one is run: with a time limit, and so that nothing in it ends the run."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from time import perf_counter
from types import FrameType

from hv15.out_of_memory import is_out_of_memory
from hv15.records.selftest import Measured, Part, Row, State
from hv15.selftest.stand import Skipped, Wrong

PATIENCE = 6
"""A check is stopped after so many times what it takes on a fast GPU, and `IMPORTS`."""
IMPORTS = 30
"""Seconds in which packages are imported and kernels are made."""


class OutOfTime(BaseException):
    """Not an Exception, so that no code under test takes it for an error of its own."""


@dataclass(frozen=True)
class MachineCheck:
    """One thing to find out."""

    part: Part
    name: str
    run: Callable[[], Measured]
    """Raises Skipped if it is not possible here, and Wrong if it finds something wrong that has no bound."""
    seconds: float = 2.0
    """What it takes on a fast GPU. It is not begun when less time is left."""
    needs: tuple[str, ...] = ()
    """Packages beyond those that the self-test needs itself."""

    def row(self, left: float) -> Row:
        """Run the check.

        Args:
            left: seconds until the end of the run.
        """
        if missing := [name for name in self.needs if not is_installed(name)]:
            return self._row("skipped", f"{', '.join(missing)}: not installed")
        if left < self.seconds:
            return self.left_out("no time")
        start, limit = perf_counter(), left if math.isinf(left) else min(left, IMPORTS + PATIENCE * self.seconds)
        measured = Measured()
        try:
            with _time_limit(limit):
                measured = self.run()
            state, message = _verdict(measured)
        except Skipped as reason:
            state, message = "skipped", str(reason)
        except Wrong as found:
            state, message = "failed", str(found)
        except OutOfTime:
            state, message = "left out", f"no time: stopped after {limit:.0f} s"
        except Exception as error:
            state, message = "failed", one_line(error)
        return self._row(state, message, perf_counter() - start, measured)

    def left_out(self, reason: str) -> Row:
        """The row of the check if it is not run."""
        return self._row("left out", reason)

    def _row(self, state: State, message: str, took: float = 0.0, measured: Measured | None = None) -> Row:
        took = round(took, 3)
        return Row(
            part=self.part, name=self.name, state=state, message=message, took=took, measured=measured or Measured()
        )


def is_installed(package: str) -> bool:
    """Whether a package can be found here."""
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def one_line(error: BaseException) -> str:
    """An error in one line."""
    if is_out_of_memory(error):
        return "out of memory: " + (str(error) or type(error).__name__).splitlines()[0][:160]
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}"[:240].rstrip(": ")


def _verdict(measured: Measured) -> tuple[State, str]:
    """Whether what was measured is right."""
    error, bound = measured.error, measured.bound
    if error is None or bound is None or error <= bound:
        return "ok", ""
    if not math.isfinite(error):
        return "failed", "the result is not finite"
    if bound == 0:
        return "failed", f"not the same bits: they differ by {error:.1e}"
    return "failed", f"differs by {error:.1e}, and {bound:.1e} is allowed"


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the main thread after so many seconds; elsewhere there is no limit."""
    if not math.isfinite(seconds) or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
