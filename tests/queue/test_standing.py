"""How far a project of the queue is."""

from __future__ import annotations

from pathlib import Path

import pytest

from hv15.queue.standing import ENDING, STARTING, standing
from hv15.records.paths import ProjectPaths
from hv15.records.queue import QueuedState
from tests.queue.made_up import project, queue, record_run, run_by_hand
from tests.records.steps import lines, start_record, step_record


@pytest.mark.parametrize(("steps", "left"), [(3, True), (5, False)])
def test_a_training_that_took_its_last_step_has_no_time_left(tmp_path: Path, steps: int, left: bool) -> None:
    """Which "0:00 left" would say of the whole run, although its samples are still to be made."""
    record_run(tmp_path, "r")
    metrics = ProjectPaths(tmp_path).metrics
    metrics.parent.mkdir(parents=True)
    metrics.write_text(lines(start_record(5), *(step_record(number + 1) for number in range(steps))))
    running = project(1, tmp_path, QueuedState.RUNNING, run="r", started=0.0)
    with run_by_hand(tmp_path, "r"):
        found = standing(queue(running), running)
    assert found.progress == f"step {steps} of 5"
    assert (found.eta_s is not None and found.eta_s > 0) is left


def test_what_a_project_does_besides_running(tmp_path: Path) -> None:
    running = project(1, tmp_path, QueuedState.RUNNING, run="r", started=0.0)
    assert standing(queue(running), running).note == STARTING
    run = record_run(tmp_path, "r")
    with run_by_hand(tmp_path, "r"):
        assert standing(queue(running), running).note == ""
        run.stop.touch()
        assert standing(queue(running), running).note == "saves and stops"
    assert standing(queue(running), running).note == ENDING
