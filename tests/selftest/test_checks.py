"""Checks are judged by their bounds, and whatever happens in one, the others go on."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from hv15.records.selftest import Measured
from hv15.selftest import stand
from hv15.selftest.checks import MachineCheck
from hv15.selftest.stand import Skipped, Wrong


def check(run: Callable[[], Measured], **more: object) -> MachineCheck:
    return MachineCheck("numbers", "x", run, **{"seconds": 0.1, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("measured", "state", "said"),
    [
        (Measured(seconds=1.0), "ok", ""),
        (Measured(error=1e-3, bound=1e-3), "ok", ""),
        (Measured(error=2e-3, bound=1e-3), "failed", "differs by 2.0e-03, and 1.0e-03 is allowed"),
        (Measured(error=0.0, bound=0.0), "ok", ""),
        (Measured(error=1e-9, bound=0.0), "failed", "not the same bits: they differ by 1.0e-09"),
        (Measured(error=float("nan"), bound=1.0), "failed", "the result is not finite"),
        (Measured(error=float("inf"), bound=1.0), "failed", "the result is not finite"),
    ],
)
def test_a_result_is_judged_by_its_bound(measured: Measured, state: str, said: str) -> None:
    row = check(lambda: measured).row(100)
    assert (row.state, row.message) == (state, said)
    assert row.measured is measured


def raises(error: BaseException) -> Callable[[], Measured]:
    def run() -> Measured:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "state", "said"),
    [
        (ValueError("first line\nsecond line"), "failed", "ValueError: first line"),
        (RuntimeError(""), "failed", "RuntimeError"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried\nmore"), "failed", "out of memory: CUDA out of memory"),
        (Skipped("only on GPUs"), "skipped", "only on GPUs"),
        (Wrong("the host waits"), "failed", "the host waits"),
    ],
)
def test_an_error_is_one_line(error: Exception, state: str, said: str) -> None:
    row = check(raises(error)).row(100)
    assert row.state == state
    assert row.message.startswith(said)
    assert "\n" not in row.message


def test_what_is_not_installed_is_skipped() -> None:
    row = check(raises(AssertionError("ran")), needs=("torch", "no_such_package", "neither.this")).row(100)
    assert (row.state, row.message) == ("skipped", "no_such_package, neither.this: not installed")


def test_what_does_not_fit_into_the_time_is_left_out() -> None:
    row = check(raises(AssertionError("ran")), seconds=5.0).row(4.9)
    assert (row.state, row.message) == ("left out", "no time")


def test_a_check_is_stopped_at_the_end_of_the_time() -> None:
    def run() -> Measured:
        with suppress(Exception):  # as code under test may do
            time.sleep(20)
        return Measured()

    row = check(run).row(0.3)
    assert row.state == "left out"
    assert row.message.startswith("no time: stopped")
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0), "the alarm is gone"


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder@U22)",
            "580.65.06",
        ),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023", "535.129.03"),
        ("", "unknown"),
    ],
)
def test_the_version_of_the_driver(text: str, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stand, "DRIVER", tmp_path / "version")
    assert stand._driver() == "unknown"
    stand.DRIVER.write_text(text)
    assert stand._driver() == version
