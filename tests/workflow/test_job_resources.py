"""What jobs ask Snakemake's executor for, and when anything is planned for that."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast, get_args

import pytest
from snakemake.resources import Resource, Resources

from hv15.choices import PlannedJob
from hv15.plan import job_requests as planned
from hv15.project import Project
from hv15.workflow import WorkflowProject
from hv15.workflow.job_resources import CPU_THREADS, GPU_THREADS
from tests.workflow.quick import QuickProject

if TYPE_CHECKING:
    from snakemake.io import Wildcards
    from snakemake.workflow import Workflow

SHARDS = cast("Wildcards", {"shard": "0"})


class Sent:
    """Snakemake's workflow object: of the main process, or of one that runs a job on another machine."""

    dryrun, dag_settings = True, None
    scheduling_settings, output_settings = None, SimpleNamespace(printshellcmds=True)
    rules: tuple[SimpleNamespace, ...] = ()
    rerun_triggers = ()

    def __init__(self, *, elsewhere: bool = False, remote: bool = False, **limits: int) -> None:
        self.non_local_exec, self.remote_exec, self.global_resources = elsewhere, remote, limits
        self.is_main_process = not remote

    def register_resource(self, name: str, value: int) -> None:
        self.global_resources[name] = value


@pytest.fixture
def project(tmp_path: Path) -> QuickProject:
    return QuickProject.make(tmp_path / "project")


def asked(project: QuickProject, workflow: Sent, job: PlannedJob = "train", stage: str = "") -> dict[str, int | None]:
    opened = WorkflowProject(Project(project.root / "config.yaml"), cast("Workflow", workflow))
    found = {name: resource(SHARDS) for name, resource in opened.resources(job, stage).items()}
    return {**found, "threads": opened.threads(job)(SHARDS)}


MADE_UP = {
    job: planned.JobRequest(1000 * number, 60, start=60.0, each=600.0 * number)
    for number, job in enumerate(get_args(PlannedJob), start=1)
}
"""What is planned; tests/plan/test_job_requests.py is about that."""


def is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planned, "job_requests", lambda *_: MADE_UP)


def nothing_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    def planning(*_: object) -> None:
        raise AssertionError("it was planned")

    monkeypatch.setattr(planned, "job_requests", planning)


@pytest.mark.parametrize(("workflow", "threads"), [(Sent(), 1), (Sent(gpu=2), 1), (Sent(remote=True), GPU_THREADS)])
def test_nothing_is_planned_where_nobody_asks(
    project: QuickProject, monkeypatch: pytest.MonkeyPatch, workflow: Sent, threads: int
) -> None:
    """On this machine, and within a job on another one, which has what it has."""
    nothing_is_planned(monkeypatch)
    found = asked(project, workflow)
    assert found == {"mem": None, "runtime": None, "nodes": None, "tasks": None, "threads": threads}


def test_an_executor_is_told_what_is_planned_once(project: QuickProject, monkeypatch: pytest.MonkeyPatch) -> None:
    project.set(runtime={"planned_gpu": "4090"})
    is_planned(monkeypatch)
    first = asked(project, Sent(elsewhere=True), "encode_latents")
    request = MADE_UP["encode_latents"]
    assert first == {"mem": request.memory_mb, "runtime": request.minutes(), "threads": GPU_THREADS}
    nothing_is_planned(monkeypatch)
    assert asked(project, Sent(elsewhere=True), "encode_latents") == first, "remembered"
    project.set(train={"learning_rate": 1e-5, "discrete_flow_shift": 5.0, "seed": 7})
    assert asked(project, Sent(elsewhere=True), "encode_latents") == first, "it costs nothing"
    project.set(train={"network_dim": 8})
    with pytest.raises(AssertionError, match="it was planned"):
        asked(project, Sent(elsewhere=True), "encode_latents")


def test_a_job_of_several_samples_has_as_many_times_as_long(
    project: QuickProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_planned(monkeypatch)
    project.set_prompts(*({"name": f"n{number}", "prompt": "x"} for number in range(4)))
    shard = asked(project, Sent(elsewhere=True, _nodes=1), "sample", "sample_shard.{shard}")
    assert shard["runtime"] == MADE_UP["sample"].minutes(4) > MADE_UP["sample"].minutes(1)


def test_a_limit_on_this_machine_is_asked_for(project: QuickProject, monkeypatch: pytest.MonkeyPatch) -> None:
    is_planned(monkeypatch)
    found = asked(project, Sent(mem_mb=64_000))
    assert found["mem"] == MADE_UP["train"].memory_mb
    assert found["runtime"] is None
    assert found["threads"] == 1


@pytest.mark.slow
def test_what_is_asked_for_is_really_planned(project: QuickProject) -> None:
    found = asked(project, Sent(mem_mb=64_000))
    assert found["mem"] is not None
    assert (found["runtime"], found["threads"]) == (None, 1)


def test_the_config_says_otherwise(project: QuickProject, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_is_planned(monkeypatch)
    numbers = {"mem_mb": 9000, "runtime": 77, "threads": 3}
    project.set(runtime={"resources": {"train": numbers}})
    found = asked(project, Sent(elsewhere=True))
    assert (found["mem"], found["runtime"], found["threads"]) == (9000, 77, 3)


@pytest.mark.parametrize(
    ("device", "nodes", "tasks", "threads"), [("auto", 2, None, 2 * GPU_THREADS), ("cpu", 2, 2, 2 * CPU_THREADS)]
)
def test_a_training_on_two_machines(
    project: QuickProject, device: str, nodes: int, tasks: int | None, threads: int
) -> None:
    """Two processes on each. Without GPUs, SLURM gives a job two nodes only for two tasks."""
    project.set(train={"num_processes": 4, "num_machines": 2}, runtime={"device": device})
    project.set(runtime={"resources": {"train": {"mem_mb": 1, "runtime": 1}}})
    found = asked(project, Sent(elsewhere=True))
    assert (found["nodes"], found["tasks"], found["threads"]) == (nodes, tasks, threads)
    here = asked(project, Sent())
    assert (here["nodes"], here["tasks"]) == (None, None)


def still_asked(project: QuickProject, workflow: Sent) -> dict[str, object]:
    """What Snakemake asks a function for in each job of `train`, as "asked", and what it takes as it is."""
    opened = WorkflowProject(Project(project.root / "config.yaml"), cast("Workflow", workflow))
    functions = {**opened.resources("train"), "gpu": opened.gpus("train", "train"), "others": lambda wildcards: 7}
    resources = Resources.from_mapping({**functions, "_cores": opened.threads("train")})
    for name, expression in {"tmpdir": "system_tmpdir", "disk_mb": "input.size_mb"}.items():
        resources[name] = Resource.from_cli_expression(name, expression)
    workflow.rules = (SimpleNamespace(resources=resources),)
    opened._job_resources.settle()
    return {name: "asked" if each.is_evaluable() else each.value for name, each in resources.items()}


def test_what_is_the_same_for_all_jobs_is_not_asked_for_each(project: QuickProject) -> None:
    """On this machine; a function or an expression of which that is not known is left alone."""
    here = {"mem_mb": None, "runtime": None, "nodes": None, "tasks": None, "_cores": 1, "others": "asked"}
    here |= {"tmpdir": tempfile.gettempdir(), "disk_mb": "asked"}
    assert still_asked(project, Sent()) == {**here, "gpu": "asked"}
    project.set(runtime={"device": "cpu"})
    assert still_asked(project, Sent()) == {**here, "gpu": 0}
    assert still_asked(project, Sent(mem_mb=64000)) == {**here, "gpu": 0, "mem_mb": "asked"}
    project.set(runtime={"resources": {"train": {"runtime": 90}}})
    assert still_asked(project, Sent()) == {**here, "gpu": 0, "runtime": "asked"}


def test_an_executor_is_asked_for_each_job(project: QuickProject) -> None:
    asked_for = still_asked(project, Sent(elsewhere=True))
    assert set(asked_for.values()) == {"asked"}
