"""A run that was started by plain `snakemake` shows its output in the dashboard as one that `hv15 run` started."""

from __future__ import annotations

from pathlib import Path

import pytest

from hv15.runs import control
from hv15.runs.processes import kill
from hv15.runs.record import history
from tests.runs.project import by_hand, make_project, wait_until
from tests.tui.recorded import dashboard, show, until
from tests.tui.watched import text_of

SAYS = (
    "job {log:q} "
    "bash -c 'echo the job says this; touch at-work; while [ ! -e end ]; do sleep 0.1; done; touch {output}'"
)


@pytest.mark.slow
@pytest.mark.parametrize("plain", [True, False])
async def test_its_output_is_seen_while_it_runs_and_is_among_the_logs(tmp_path: Path, plain: bool) -> None:
    root = make_project(tmp_path / "project", first=SAYS)
    if plain:
        by_hand(root)
    else:
        control.start(root, ["all"], ("--cores", "1"))
    try:
        wait_until((root / "at-work").exists)
        app = dashboard(root)
        async with app.run_test(size=(120, 40)) as pilot:
            await until(pilot, lambda: "▶ running" in text_of(app))
            await pilot.press("o")
            await until(pilot, lambda: "Job 2: Making a" in text_of(app) and "the job says this" in text_of(app))
            [run] = history(root)
            assert f"{run.id}/output.log" in text_of(app)
            await show(pilot, app, "6", "logs")
            await until(pilot, lambda: f"run {run.id}" in text_of(app))
        (root / "end").touch()
        wait_until(lambda: "3 of 3 steps (100%) done" in run.output.read_text())
    finally:
        for each in history(root):
            if record := each.record():
                kill(record)
