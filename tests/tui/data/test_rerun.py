"""Real Snakemake on a project of two shell commands."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.runs.project import by_hand
from tui.data.rerun import DryRun
from tui.data.trial import Trial

SNAKEFILE = """
from pathlib import Path
from hv15.runs.events import record_events
record_events(workflow)
import yaml
files = [*workflow.overwrite_configfiles, "config.yaml"]
config = yaml.safe_load(Path(files[0]).read_text())
if config["seed"] == "wrong":
    from snakemake.exceptions import WorkflowError
    raise WorkflowError(f"{files[0]}:1:7 seed: found 'wrong', expected a whole number")

rule all:
    input: "results/b.txt"

rule first:
    output: "results/a.txt"
    params: seed=config["seed"]
    message: "Making a"
    shell: "echo {params.seed} > {output}"

rule second:
    input: "results/a.txt"
    output: "results/b.txt"
    shell: "cp {input} {output}"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    return tmp_path / "config.yaml"


def test_an_edit_tells_what_runs_again_and_why(config: Path) -> None:
    plan = DryRun(config, targets=["all"]).run()
    assert plan.error == ""
    assert [(job.rule, job.reason) for job in plan.jobs] == [
        ("first", "results/a.txt is not there yet"),
        ("second", "results/b.txt is not there yet; results/a.txt will be made anew"),
        ("all", "results/b.txt will be made anew"),
    ]
    assert plan.jobs[0].title == "Making a"
    assert by_hand(config.parent).wait(timeout=300) == 0
    assert DryRun(config, targets=["all"]).run().summary.startswith("nothing would run")
    edited = DryRun(config, "seed: 2\n", targets=["all"]).run()
    assert (edited.jobs[0].rule, edited.jobs[0].reason) == ("first", "its settings changed")
    assert edited.summary == "3 jobs: first, second, all"
    assert config.read_text() == "seed: 1\n"
    assert (config.parent / "results/a.txt").read_text() == "1\n"
    assert sorted(path.name for path in config.parent.iterdir() if path.name.startswith(".hv15-trial")) == []


def test_a_wrong_config_is_named_as_the_project_s_own(config: Path) -> None:
    plan = DryRun(config, "seed: wrong\n", targets=["all"]).run()
    assert plan.jobs == ()
    assert plan.error == f"{config}:1:7 seed: found 'wrong', expected a whole number"


def test_a_plan_can_be_cancelled(config: Path) -> None:
    dry_run = DryRun(config, targets=["all"])
    threading.Timer(0.3, dry_run.cancel).start()
    assert dry_run.run().cancelled
    assert dry_run.run().cancelled


def test_without_a_folder_to_write_it_says_so(tmp_path: Path) -> None:
    plan = DryRun(tmp_path / "nowhere" / "config.yaml", "seed: 1\n").run()
    assert "cannot be written" in plan.error


def test_files_of_dashboards_that_are_gone_are_removed(config: Path) -> None:
    stale, living = (config.parent / f".hv15-trial-{pid}-0.yaml" for pid in (2**22 + 1, os.getpid()))
    stale.touch()
    living.touch()
    with Trial(config, "a: 1").file() as file:
        assert file.read_text() == "a: 1"
        assert not stale.exists()
        assert living.exists()
    assert not file.exists()
