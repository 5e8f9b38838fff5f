"""Work beside the caller: in order, a few results ahead and no more, errors in their place, no thread left behind."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator

import pytest

from hv15.background import Background


def test_the_order_is_kept_and_the_thread_works_ahead() -> None:
    ready = threading.Event()

    def work(task: int) -> int:
        assert threading.current_thread().name == "squares"
        if task == 2:
            ready.set()
        return task * task

    squares = Background(map(work, range(5)), ahead=3, name="squares")
    assert ready.wait(5)  # three results are there before the first is asked for
    assert list(squares) == [0, 1, 4, 9, 16]
    assert list(squares) == []


def test_no_more_is_made_than_may_wait() -> None:
    made: list[int] = []
    full = threading.Event()

    def endless() -> Iterator[int]:
        while True:
            made.append(len(made))
            if len(made) == 2:
                full.set()
            yield made[-1]

    numbers = Background(endless(), ahead=2, name="numbers")
    assert full.wait(5)
    for taken in range(1, 20):
        assert next(numbers) == taken - 1
        assert len(made) <= taken + 2
    numbers.close()
    assert len(made) <= 22


def test_an_error_arrives_in_its_place() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("broken item")

    results = Background(broken(), ahead=3, name="broken")
    assert next(results) == 1
    with pytest.raises(ValueError, match="broken item"):
        next(results)
    assert list(results) == []


def test_closing_ends_the_thread_and_the_iterator() -> None:
    ended = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            ended.set()

    results = Background(endless(), ahead=1, name="endless")
    assert next(results) == 1
    results.close()
    assert ended.wait(5)
    assert "endless" not in {thread.name for thread in threading.enumerate()}


def test_what_was_taken_is_not_held() -> None:
    class Large:
        pass

    results = Background((Large() for _ in range(3)), ahead=1, name="large")
    taken = next(results)
    trace = weakref.ref(taken)
    next(results)
    del taken
    assert trace() is None
    results.close()


def test_the_time_that_the_caller_waits_is_counted() -> None:
    go = threading.Event()

    def late() -> Iterator[int]:
        go.wait(5)
        yield 1

    results = Background(late(), ahead=1, name="late")
    threading.Timer(0.05, go.set).start()
    next(results)
    assert 0.04 < results.waited < 5
