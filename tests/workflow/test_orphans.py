"""After a kill -9 of Snakemake alone, its training continues; whoever calls Snakemake again learns of it."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from hv15.runs import control
from hv15.runs.processes import kill
from hv15.runs.record import history
from tests.runs.project import wait_until
from tests.workflow.finished import finish
from tests.workflow.project import QUICK_PROGRAMS
from tests.workflow.quick import QuickProject

LOG = "results/logs/train.log"
TRAINED = "results/train.safetensors"


@pytest.fixture
def orphaned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[QuickProject]:
    """A project whose training outlived its Snakemake. Both are real programs: a fork is not found by its name."""
    project = QuickProject.make(tmp_path / "project")
    finish(project, TRAINED)
    shutil.rmtree(project.root / "results/train")
    (project.root / TRAINED).unlink()
    (project.root / "hang").touch()
    with monkeypatch.context() as patch:
        patch.delenv(QUICK_PROGRAMS)
        run = project.begin("--cores", "1", target=TRAINED)
    wait_until((project.root / "at-work").exists)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    yield project
    for each in history(project.root):
        if record := each.record():
            kill(record)


def test_a_plain_snakemake_names_the_process_and_how_to_end_it(orphaned: QuickProject) -> None:
    root = orphaned.root
    left = {each.pid for each in control.orphans(root)}
    log = (root / LOG).read_bytes()
    assert b"step 1" in log
    for words in (("--cores", "1"), ("--unlock",), ("--cores", "1"), ("--cores", "1", "--nolock")):
        refused = orphaned.snakemake(*words, target=TRAINED)
        if words != ("--unlock",):
            assert refused.code != 0
            assert "hv15 train (pid " in refused.output
            assert f"`hv15 stop {root}`" in refused.output
        assert (root / LOG).read_bytes() == log, "the log of the living job"
        assert {each.pid for each in control.orphans(root)} == left
    assert len(history(root)) == 1

    # a look at the plan is no harm
    assert orphaned.snakemake("-n", target=TRAINED).code == 0
