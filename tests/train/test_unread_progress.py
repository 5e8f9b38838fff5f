"""The terminal or the reader of a training's progress goes away: what it has trained is saved all the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hv15 import progress
from hv15.output import with_flushed_output
from hv15.terminal_text import cleaned
from hv15.train.examples import Example
from hv15.train.signals import EXIT_RESUMABLE
from tests.forked import forked
from tests.train.test_resume import at_step
from tests.train.world import run, settings
from tests.unread import broken_pipe, closed_terminal

PROGRAM = """
import json, os, signal, sys
from pathlib import Path
from hv15 import progress
from hv15.output import with_flushed_output
from hv15.terminal_text import cleaned
from tests.train.test_resume import Example, at_step, run, settings

progress.LOG_INTERVAL_S = 0
if int(sys.argv[3]):
    Example.prediction = at_step(3, lambda: os.kill(os.getpid(), int(sys.argv[3])))

@with_flushed_output
def main(arguments=None):
    with cleaned():
        run(Path(sys.argv[1]), settings(**json.loads(sys.argv[2])))
    return 0

sys.exit(main())
"""
"""A training as the `hv15` program runs it, which gets a signal in its third step."""


def train(folder: Path, stderr: int, number: int) -> int:
    """Train with a stderr that nobody reads, and return the exit code."""
    words = [str(folder), json.dumps({"max_train_steps": 6}), str(number)]
    try:
        return subprocess.run([sys.executable, "-c", PROGRAM, *words], stderr=stderr, check=False).returncode
    finally:
        os.close(stderr)


def stopped_in_step_3(folder: Path, number: int) -> None:
    """The same program in a process that has imported all."""
    progress.LOG_INTERVAL_S = 0
    Example.prediction = at_step(3, lambda: os.kill(os.getpid(), number))  # type: ignore[method-assign]

    @with_flushed_output
    def main(arguments: object = None) -> int:
        with cleaned():
            run(folder, settings(max_train_steps=6))
        return 0

    sys.exit(main())


def test_a_stop_saves_the_state_when_the_terminal_is_closed(tmp_path: Path) -> None:
    terminal = closed_terminal()
    process = forked(stopped_in_step_3, tmp_path, int(signal.SIGINT), stderr=terminal)
    os.close(terminal)
    process.join(300)
    assert process.exitcode == EXIT_RESUMABLE
    positions = list((tmp_path / "train" / "state").glob("*/*.json"))
    assert [json.loads(path.read_text())["step"] for path in positions] == [3]


@pytest.mark.slow
@pytest.mark.parametrize("unread", [broken_pipe, closed_terminal])
def test_a_stop_saves_the_state(tmp_path: Path, unread: Callable[[], int]) -> None:
    assert train(tmp_path, unread(), signal.SIGINT) == EXIT_RESUMABLE
    positions = list((tmp_path / "train" / "state").glob("*/*.json"))
    assert [json.loads(path.read_text())["step"] for path in positions] == [3]


@pytest.mark.parametrize(
    "unread", [pytest.param(each, marks=pytest.mark.slow) for each in (broken_pipe, closed_terminal)]
)
def test_it_trains_to_its_end(tmp_path: Path, unread: Callable[[], int]) -> None:
    assert train(tmp_path, unread(), 0) == 0
    assert (tmp_path / "lora.safetensors").exists()
    assert (tmp_path / "train" / "summary.json").exists()
