"""Progress goes to a terminal, to a log, or to nobody: then the work continues without it."""

from __future__ import annotations

import contextlib
import io
import os
import sys

import pytest

from hv15.progress import Progress, clock, speed
from tests.unread import broken_pipe, closed_terminal


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal() -> None:
    stream = Terminal()
    with Progress(2, "train", unit="steps", stream=stream) as progress:
        progress.advance(note="loss 0.1")
        progress.advance()
    shown = stream.getvalue()
    assert "\r\x1b[2Ktrain" in shown
    assert "2/2 steps" in shown
    assert "loss 0.1" in shown
    assert shown.endswith("\n")


def test_plain_lines_in_a_log() -> None:
    stream = io.StringIO()
    with Progress(2, "encode", unit="clips", stream=stream) as progress:
        progress.advance(2)
    assert stream.getvalue().startswith("encode 100%  2/2 clips  ")
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize("gone", [broken_pipe, closed_terminal])
def test_where_nobody_reads_any_more_the_work_goes_on(gone: object) -> None:
    assert callable(gone)
    descriptor = gone()
    stream = os.fdopen(os.dup(descriptor), "w")
    try:
        for bar in (False, True):
            with Progress(3, "train", stream=stream) as progress:
                progress._bar = bar
                for _ in range(3):
                    progress.advance()
            assert progress.done == 3
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            stream.close()


def test_a_closed_stream_and_none_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    with Progress(1, "train", stream=stream) as progress:
        stream.close()
        progress.advance()
    monkeypatch.setattr(sys, "stderr", None)
    with Progress(1, "train") as progress:
        progress.advance()
    assert progress.done == 1


def test_times_and_rates_in_words() -> None:
    assert [clock(7), clock(750), clock(11045)] == ["0:07", "12:30", "3:04:05"]
    assert [speed(3.21), speed(0.25), speed(0)] == ["3.2/s", "4.0 s each", "0.0/s"]
