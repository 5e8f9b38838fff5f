"""Jobs in a container, with a stand-in for apptainer that runs a command on this machine as it stands."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from hv15.runs.job_shell import SCRIPT
from tests.workflow.quick import QuickProject

APPTAINER = """\
#!{python}
import json, os, sys
if sys.argv[1:] == ["--version"]:
    sys.exit(print("apptainer version 1.3.4"))
with open({log!r}, "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
os.execvp("bash", ["bash", *sys.argv[-2:]])
"""


@pytest.fixture
def project(tmp_path: Path) -> QuickProject:
    return QuickProject.make(tmp_path / "project")


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The calls of the stand-in, as JSON lists."""
    program = tmp_path / "programs/apptainer"
    program.parent.mkdir()
    found = tmp_path / "calls.jsonl"
    program.write_text(APPTAINER.format(python=sys.executable, log=str(found)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return found


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "--sdm apptainer: runtime.container names no image"),
        ({"container": "nothing.sif"}, "runtime.container: there is no file"),
    ],
)
def test_an_image_is_needed(project: QuickProject, log: Path, settings: dict[str, str], said: str) -> None:
    project.set(runtime=settings)
    outcome = project.snakemake("-n", "--sdm", "apptainer")
    assert outcome.code == 1
    assert said in outcome.output
    assert "apptainer build hv15.sif" in outcome.output, "how to build one"
    assert "Traceback" not in outcome.output


@pytest.mark.parametrize("device", [pytest.param("cpu", marks=pytest.mark.slow), "auto"])
def test_every_job_runs_in_the_image(project: QuickProject, log: Path, device: str) -> None:
    project.set(runtime={"container": "hv15.sif", "device": device})
    (project.root / "hv15.sif").write_text("an image")
    outcome = project.snakemake("--until", "encode_latents", "--sdm", "apptainer", "--apptainer-args=--bind /data")
    assert outcome.code == 0, outcome.output
    assert outcome.jobs["encode latents"] == 2
    calls = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(calls) == sum(outcome.jobs.values())
    for call in calls:
        *options, image, shell, _, command = call
        assert (options[0], image, shell) == ("exec", "hv15.sif", "bash")
        assert ("--nv" in options) == (device == "auto")
        binds = [options[place + 1] for place, word in enumerate(options) if word == "--bind"]
        assert (binds[0], binds.count(f"{SCRIPT}:{SCRIPT}:ro")) == ("/data", 1)
        assert f"source {SCRIPT}" in command


@pytest.mark.slow
def test_without_that_option_the_image_does_not_matter(project: QuickProject, log: Path) -> None:
    project.set(runtime={"container": "nothing.sif"})
    outcome = project.snakemake("--until", "encode_latents")
    assert outcome.code == 0, outcome.output
    assert outcome.jobs["encode latents"] == 2
    assert not log.exists()
