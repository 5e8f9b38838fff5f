"""What jobs ask a cluster for follows from the plan of their stages."""

from __future__ import annotations

import math

import pytest

from hv15.choices import PlannedJob
from hv15.config.runtime import RuntimeSettings
from hv15.errors import UserError
from hv15.plan import job_requests as module
from hv15.plan.devices import Device, find_device
from hv15.plan.job_requests import ASSUMED_MINUTES, GPU_PROCESS, UNKNOWN_GPU, JobRequest, job_requests, planned_device
from hv15.plan.stages import StagePlanner
from hv15.project import Project
from hv15.units import GIB
from tests.workflow.quick import QuickProject

Requests = dict[PlannedJob, JobRequest]
CPU = Device("this machine's CPU", 24 * GIB, None, gpu=False, bfloat16=False)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> QuickProject:
    project = QuickProject.make(tmp_path_factory.mktemp("requests") / "project")
    project.set(
        cache={"shards": 2},
        train={"max_train_steps": 100_000, "blocks_to_swap": 1, "num_processes": 2, "num_machines": 2},
        sample={"infer_steps": 40, "prompts": [{"name": "one", "prompt": "x"}, {"name": "two", "prompt": "y"}]},
    )
    return project


@pytest.fixture(scope="module")
def planner(quick: QuickProject) -> StagePlanner:
    """With a GPU that is known."""
    return StagePlanner(Project(quick.root / "config.yaml"), find_device("4090"))


@pytest.fixture(scope="module")
def found(planner: StagePlanner) -> Requests:
    """What jobs ask for on that GPU, from the same plans."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "StagePlanner", lambda *_: planner)
        return job_requests(planner.project, planner.device)


def limit(seconds: float) -> int:
    return math.ceil(1.5 * seconds / 60) + 10


def test_time_is_the_worst_case_with_a_margin(planner: StagePlanner, found: Requests) -> None:
    train = planner.stage("train")
    assert train.total is not None
    assert found["train"].minutes() == limit(train.total.most)
    assert found["train"].minutes() > 15, "else this shows nothing"


def test_a_job_of_a_shard_does_its_part(planner: StagePlanner, found: Requests) -> None:
    plan = planner.stage("encode latents")
    assert plan.each is not None
    assert plan.count == 5
    assert found["encode_latents"].each == pytest.approx(3 * plan.each.most)


def test_a_job_that_makes_several_samples_has_as_many_times_as_long(planner: StagePlanner, found: Requests) -> None:
    request = found["sample"]
    step, decoding = planner.stage("denoise").each, planner.stage("decode").each
    assert step is not None
    assert decoding is not None
    assert request.each == pytest.approx(40 * step.most + decoding.most)
    assert request.start is not None
    assert request.minutes(1000) == limit(request.start + 1000 * request.each)


@pytest.mark.slow
def test_where_the_speed_is_unknown_limits_are_assumed(planner: StagePlanner) -> None:
    found = job_requests(planner.project, UNKNOWN_GPU)
    assert {job: request.minutes() for job, request in found.items()} == ASSUMED_MINUTES


def test_memory_of_the_machine_beside_a_gpu_is_that_of_processes_and_swapped_blocks(
    planner: StagePlanner, found: Requests
) -> None:
    """On each of two machines one process trains."""
    plan = planner.stage("train")
    assert plan.host > 0
    assert found["train"].memory_mb == math.ceil(1.25 * (plan.host + GPU_PROCESS) / 1e6)


@pytest.mark.slow
def test_memory_on_a_cpu_is_what_the_stage_needs(planner: StagePlanner) -> None:
    found, plan = job_requests(planner.project, CPU), StagePlanner(planner.project, CPU).stage("decode")
    assert found["decode"].memory_mb == math.ceil(1.25 * plan.needed / 1e6)


@pytest.mark.parametrize(
    ("settings", "here", "expected"),
    [
        ({"planned_gpu": "a100-80gb"}, CPU, "A100 80GB"),
        ({"planned_gpu": "a100-80gb", "device": "cpu"}, CPU, CPU.name),
        ({}, CPU, UNKNOWN_GPU.name),
        ({}, find_device("4090"), "RTX 4090"),
        ({"device": "cpu"}, CPU, CPU.name),
    ],
)
def test_the_device_of_other_machines(
    settings: dict[str, str], here: Device, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "detect_device", lambda setting: here)
    assert planned_device(RuntimeSettings.model_validate(settings)).name == expected


def test_an_unknown_gpu_is_refused_by_the_setting() -> None:
    with pytest.raises(UserError, match=r"^runtime\.planned_gpu: 4091 fits no known GPU"):
        planned_device(RuntimeSettings(planned_gpu="4091"))
