"""A plain `snakemake` runs as many jobs with a model at once as there are GPUs, each on a GPU of its own."""

from __future__ import annotations

import uuid
from collections import Counter
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Literal, cast

import pytest

from hv15.project import Project
from hv15.workflow import WorkflowProject
from hv15.workflow.parallel_jobs import sampling_jobs
from tests.workflow.quick import QuickProject
from tests.workflow.stub_hv15 import MEET_S

if TYPE_CHECKING:
    from snakemake.io import Wildcards
    from snakemake.workflow import Workflow

JOBS = {"encode latents": 2, "encode texts": 2, "train": 1}
ALONE = JOBS | {"stage denoise": 2, "stage decode": 2}
TOGETHER = JOBS | {"stage shard": 1}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> QuickProject:
    """A project of two shards and two samples, on a machine with two GPUs that nobody else knows."""
    project = QuickProject.make(tmp_path / "project")
    project.set_prompts({"name": "one", "prompt": "a red circle"}, {"name": "two", "prompt": "a blue square"})
    (project.root / "gpus.log").touch()
    mark = uuid.uuid4().hex
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"{mark}-a,{mark}-b")
    monkeypatch.setenv(MEET_S, "2")
    return project


def times(project: QuickProject, jobs: dict[str, int]) -> list[tuple[str, float, float]]:
    """GPU, begin and end of each job."""
    lines = [line.split(maxsplit=3) for line in (project.root / "gpus.log").read_text().splitlines()]
    counted = Counter(words[3] for words in lines)
    assert {name: counted[name] for name in (*ALONE, *TOGETHER) if counted[name]} == jobs
    return [(gpu[-1], float(begin), float(end)) for gpu, begin, end, _ in lines]


def at_once(jobs: list[tuple[str, float, float]]) -> list[tuple[str, str]]:
    """The GPUs of each two jobs that ran at the same time."""
    return [(one[0], two[0]) for one, two in combinations(jobs, 2) if one[1] < two[2] and two[1] < one[2]]


def test_jobs_run_side_by_side_each_on_its_gpu(project: QuickProject) -> None:
    outcome = project.snakemake()
    assert outcome.code == 0, outcome.output
    pairs = at_once(times(project, ALONE))
    assert len(pairs) >= 2, "of shards, and of samples"
    assert {frozenset(pair) for pair in pairs} == {frozenset("ab")}


@pytest.mark.slow
def test_one_after_the_other_if_that_is_asked_for(project: QuickProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MEET_S, "0.2")
    outcome = project.snakemake("--resources", "gpu=1")
    assert outcome.code == 0, outcome.output
    assert at_once(times(project, TOGETHER)) == []


class Sent:
    """Snakemake's workflow object where an executor sends the jobs to other machines, or keeps them here."""

    is_main_process, dryrun, dag_settings, remote_exec = False, True, None, False
    scheduling_settings, output_settings = None, SimpleNamespace(printshellcmds=True)
    rules, rerun_triggers = (), ()

    def __init__(self, *, elsewhere: bool, **limits: int) -> None:
        self.non_local_exec, self.global_resources = elsewhere, limits

    def register_resource(self, name: str, value: int) -> None:
        self.global_resources[name] = value


@pytest.mark.parametrize(
    ("workflow", "limits"),
    [
        (Sent(elsewhere=False), {"gpu": 2}),
        (Sent(elsewhere=False, gpu=5), {"gpu": 5}),
        (Sent(elsewhere=True), {}),
    ],
)
def test_the_gpus_of_this_machine_limit_no_other(project: QuickProject, workflow: Sent, limits: dict[str, int]) -> None:
    opened = WorkflowProject(Project(project.root / "config.yaml"), cast("Workflow", workflow))
    assert opened._planner.running
    assert workflow.global_resources == limits


@pytest.mark.parametrize(
    ("ranks", "elsewhere", "expected"), [(1, False, 1), (2, False, 2), (4, False, 2), (4, True, 4)]
)
@pytest.mark.parametrize("section", ["train", "sample"])
def test_a_job_that_divides_its_videos_asks_for_several_gpus(
    project: QuickProject, section: Literal["train", "sample"], ranks: int, elsewhere: bool, expected: int
) -> None:
    """Not for more than there are here, because Snakemake would refuse it in words of its own."""
    project.set(**{section: {"context_parallel": ranks}})
    workflow = cast("Workflow", Sent(elsewhere=elsewhere))
    opened = WorkflowProject(Project(project.root / "config.yaml"), workflow)
    assert opened.gpus(section)(cast("Wildcards", {})) == expected


@pytest.mark.parametrize(
    ("workflow", "settings", "expected"),
    [
        (Sent(elsewhere=False, gpu=2, _cores=16), {}, 2),
        (Sent(elsewhere=False, gpu=4, _cores=16), {"sample": {"context_parallel": 2}}, 2),
        (Sent(elsewhere=False, gpu=1, _cores=16), {"sample": {"context_parallel": 2}}, 1),
        (Sent(elsewhere=False, gpu=8, _cores=3), {}, 3),
        (Sent(elsewhere=False, gpu=8, _cores=3), {"runtime": {"device": "cpu"}}, 1),
        (Sent(elsewhere=True, _nodes=5), {}, 5),
        (Sent(elsewhere=True, _nodes=5, gpu=4), {}, 4),
        (Sent(elsewhere=True), {}, 0),
    ],
)
def test_how_many_jobs_sample_at_the_same_time(
    project: QuickProject, workflow: Sent, settings: dict[str, object], expected: int
) -> None:
    project.set(**settings)
    opened = Project(project.root / "config.yaml")
    assert sampling_jobs(cast("Workflow", workflow), opened.settings) == expected


def test_only_here_a_job_that_takes_what_was_made_needs_no_gpu(project: QuickProject) -> None:
    for elsewhere, expected in ((False, 0), (True, 1)):
        workflow = Sent(elsewhere=elsewhere, gpu=1, _cores=1, _nodes=1)
        workflow.is_main_process = True
        opened = WorkflowProject(Project(project.root / "config.yaml"), cast("Workflow", workflow))
        wildcards = cast("Wildcards", {"name": "one"})
        assert opened.gpu_of("sample_video.{name}")(wildcards) == expected
        assert opened.gpus("sample", "sample_latents.{name}")(wildcards) == expected
        assert opened.gpus("sample")(wildcards) == 1
