"""No child process runs the Python files of the folder that it is started in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hv15.environment import SAFE_PATH
from hv15.runs import control, lock
from hv15.runs.state import RunState, status
from tests.runs.project import wait_until
from tests.workflow.project import REPOSITORY
from tests.workflow.quick import QuickProject
from tui import serve
from tui.data import trial
from tui.demo import project as demo

TRAPS = ("argparse", "queue", "json", "random", "yaml", "hv15", "tui", "snakemake")
TRAP = "import pathlib; pathlib.Path(__file__).with_name('sprung').touch(); raise SystemExit('a trap')\n"


def set_traps(folder: Path) -> Path:
    """Python files that stand where a person keeps clips."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in TRAPS:
        (folder / f"{name}.py").write_text(TRAP)
    return folder / "sprung"


def test_the_guard_of_these_tests(tmp_path: Path) -> None:
    sprung = set_traps(tmp_path)
    subprocess.run([sys.executable, "-m", "hv15.cli", "--version"], cwd=tmp_path, check=False, capture_output=True)
    assert sprung.exists()


STARTS_PYTHON = f"""
include: {str(REPOSITORY / "Snakefile")!r}
rule starts_python:
    output: "started"
    shell: "{sys.executable} -c 'import argparse, queue' && touch started"
"""


def test_a_run(tmp_path: Path) -> None:
    """Snakemake itself, and the commands of its jobs, which work in the project folder."""
    project = QuickProject.make(tmp_path / "project")
    sprung = set_traps(project.root)
    run = control.start(project.root, ["demo_models"], ("--cores", "1"))
    wait_until(lambda: lock.holder(project.root) is None)
    assert status(run, None).state is RunState.FINISHED, run.output.read_text()
    assert (project.root / "models").is_dir()
    assert not sprung.exists()


@pytest.mark.slow
def test_what_a_job_of_plain_snakemake_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python on its own looks into the folder in which it works; the workflow tells all its jobs' Pythons not to.

    (Snakemake itself looks into the folder of its Snakefile, so that one must not be that of the clips.)
    """
    monkeypatch.delenv(SAFE_PATH, raising=False)
    project = QuickProject.make(tmp_path / "project")
    sprung = set_traps(project.root)
    (tmp_path / "workflow").mkdir()
    snakefile = tmp_path / "workflow/Snakefile"
    snakefile.write_text(STARTS_PYTHON)
    outcome = project.snakemake("--cores", "1", "-s", str(snakefile), target="started")
    assert outcome.code == 0, outcome.output
    assert (project.root / "started").exists()
    assert not sprung.exists()


@pytest.mark.slow
def test_the_demo_and_questions_of_the_dashboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sprung = set_traps(tmp_path)
    monkeypatch.chdir(tmp_path)
    with demo.demo_project() as config:
        assert lock.holder(config.parent)
    found = trial.Trial(config=tmp_path / "config.yaml", text="task: t2v\n").ask("check", "--models")
    assert found is not None
    assert "checks" in found
    assert not sprung.exists()


@pytest.mark.slow
def test_ranks_of_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SAFE_PATH, raising=False)
    sprung = set_traps(tmp_path)
    code = (
        "import sys; from hv15 import ranks; sys.argv = ['hv15', '--version']; ranks.run_on_ranks(2, 'cpu', 'x is 2')"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.count("hv15 ") == 2
    assert not sprung.exists()


PLANS = """
from dataclasses import dataclass
from hv15.plan.cost import Cost
from hv15.selftest.planned import PlannedCosts

@dataclass(frozen=True)
class Work:
    def plan(self):
        return Cost({"x": 7}, {})

if __name__ == "__main__":
    plans = PlannedCosts([Work()])
    print(plans._found[Work()].result().peak)
    plans.close()
"""


@pytest.mark.slow
def test_the_planner_of_the_self_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of multiprocessing imports that package before it knows where its starter looks for modules."""
    monkeypatch.delenv(SAFE_PATH, raising=False)
    clips = tmp_path / "clips"
    sprung = set_traps(clips)
    (clips / "multiprocessing.py").write_text(TRAP)
    program = tmp_path / "program.py"
    program.write_text(PLANS)
    done = subprocess.run([sys.executable, str(program)], cwd=clips, capture_output=True, text=True, check=False)
    assert not sprung.exists()
    assert done.stdout == "7\n", done.stderr


def test_no_other_process_is_started_without_it() -> None:
    """Python with a module or code of ours on its command line has -P, wherever it is started."""
    files = [file for package in ("hv15", "tui") for file in (REPOSITORY / package).rglob("*.py")]
    starts = [line for file in files for line in file.read_text().splitlines() if "[sys.executable," in line]
    assert len(starts) > 3
    assert [line for line in starts if '[sys.executable, "-P",' not in line] == []


def test_the_web_view(tmp_path: Path) -> None:
    pytest.importorskip("textual_serve", reason="the extra `web` is not installed")
    sprung = set_traps(tmp_path)
    command = serve.make_server(("--help",), 1234, "token").command
    done = subprocess.run(
        command, shell=True, cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, check=True
    )
    assert "usage: hv15 tui" in done.stdout
    assert not sprung.exists()
