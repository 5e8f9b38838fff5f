"""Work done in a thread of its own, a few results ahead of the caller."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from time import perf_counter
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Background(Generic[Result]):
    """Runs an iterator in a thread of its own and hands its results out in order.

    An error in the iterator is raised when its next result is taken; after that there are no more results.

    Args:
        results: runs in the thread.
        ahead: how many results may wait for the caller before the thread pauses.
        name: name of the thread.
    """

    def __init__(self, results: Iterable[Result], *, ahead: int, name: str) -> None:
        self.waited = 0.0
        """Seconds that the caller has waited for results, in all."""
        self._ahead = max(1, ahead)
        self._ready: deque[Result] = deque()
        self._error: BaseException | None = None
        self._ended = self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, args=(results,), name=name, daemon=True)
        self._thread.start()

    def _run(self, results: Iterable[Result]) -> None:
        try:
            for result in results:
                with self._changed:
                    self._ready.append(result)
                    del result  # only the caller holds it now, so that its memory can be freed
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._closed or len(self._ready) < self._ahead)
                    if self._closed:
                        return
        except BaseException as error:  # the caller can deal with it, this thread cannot
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def __iter__(self) -> Iterator[Result]:
        return self

    def __next__(self) -> Result:
        start = perf_counter()
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._ended)
            self.waited += perf_counter() - start
            if self._ready:
                self._changed.notify_all()
                return self._ready.popleft()
            error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    def close(self) -> None:
        """Stop the thread once its current result is done, and drop the results that were not taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._ready.clear()
