"""What the dashboard knows before a start: `hv15 check` as records, and what the machine says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hv15.records.checks import VERSION, Check, checks_json
from hv15.records.problems import Place
from tui.data.preflight import Preflight, machine_checks
from tui.data.system import Gpu, SystemSample
from tui.data.trial import LAST_LINES, Completed, Trial


def answer(monkeypatch: pytest.MonkeyPatch, done: Completed) -> None:
    """Let the command end like this."""
    monkeypatch.setattr(Trial, "run", lambda self, words, **more: done)


def test_a_config_that_is_wrong_gives_its_problems_with_their_places(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("train: {seed: x}\nsample: {seed: y}\n")
    assert Preflight(config).run() == tuple(
        Check("problem", "config", f"found '{found}', expected a whole number", place=Place(config, *place))
        for found, place in (("x", (1, 15, ("train", "seed"))), ("y", (2, 16, ("sample", "seed"))))
    )


def test_what_the_check_prints_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = (Check("ok", "disk", "free"), Check("problem", "dit", "gone", "copy it", Place(setting=("models", "dit"))))
    answer(monkeypatch, Completed(2, json.dumps(checks_json(checks)), "a warning of some library", False))
    assert Preflight(tmp_path).run() == checks


@pytest.mark.parametrize(
    ("output", "errors", "said"),
    [
        ("", "Traceback\n" * 99 + "RuntimeError: out of luck\n", "RuntimeError: out of luck"),
        ("", "", "what `hv15 check` printed is not JSON: "),
        (json.dumps({"version": VERSION + 1}), "", f"printed is of version {VERSION + 1}, but this hv15 understands"),
    ],
)
def test_a_check_that_cannot_be_read_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, errors: str, said: str
) -> None:
    answer(monkeypatch, Completed(1, output, errors, False))
    [check] = Preflight(tmp_path).run()
    assert (check.state, check.subject) == ("problem", "check")
    assert said in check.message
    assert len(check.message.splitlines()) <= LAST_LINES


def test_a_check_that_nobody_waits_for_says_nothing(tmp_path: Path) -> None:
    preflight = Preflight(tmp_path)
    preflight.cancel()
    assert preflight.run() == ()


def machine(**gpu: Any) -> SystemSample:
    gpus = (Gpu(0, "x", **gpu),) if gpu else ()
    return SystemSample(0, 0, 1, 10, 100, 0, (), 100 << 30, 200 << 30, gpus, "no GPU here")


def test_a_busy_gpu_is_told_before_the_start() -> None:
    assert machine_checks(machine(used=10, total=100)) == ()
    [busy] = machine_checks(machine(used=3 << 30, total=24 << 30))
    assert (busy.subject, busy.text) == ("GPU0 x", "3.0 of 24.0 GiB are in use")
    assert machine_checks(machine()) == (Check("note", "GPU", "no GPU here"),)
