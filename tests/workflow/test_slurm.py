"""Jobs on a real SLURM cluster: `pytest -m slurm -n 0`, as root on a Debian. It takes ten to twenty minutes.

What its jobs make is compared with what the same config makes on this machine, byte for byte.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hv15.gpus import VISIBLE
from tests.workflow.conftest import make_project
from tests.workflow.project import REPOSITORY, ProjectFolder, environment
from tests.workflow.quick import QuickProject
from tests.workflow.slurm_cluster import BOUND, COUNTING, GPUS, Cluster, cluster
from tests.workflow.stub_hv15 import INSTALLED, MEET_S

pytestmark = pytest.mark.slurm

LORA = "results/train.safetensors"
DEADLINE_S = 400.0
PROFILE = [
    *("--workflow-profile", "profiles/slurm"),
    # This cluster has no accounting, and its jobs are short.
    *("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1"),
    *("--seconds-between-status-checks", "1", "--latency-wait", "10"),
]
TINY = {"mem_mb": 1500, "runtime": 30, "threads": 1}
"""What the tests' jobs ask for, so that many fit on the nodes."""
ASKED = dict.fromkeys(("encode_latents", "encode_texts", "train", "sample", "decode"), TINY)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("slurm")) as found:
        yield found


@pytest.fixture(autouse=True)
def with_slurm(slurm: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)


def real_project(root: Path, models: Path, clips: Path, **train: Any) -> ProjectFolder:
    """A project whose jobs are real, with two shards and tiny models, on the CPU."""
    project = make_project(root, models, clips)
    project.set(runtime={"device": "cpu", "resources": ASKED}, train=train)
    return project


def start(project: ProjectFolder | QuickProject, *arguments: str, target: str = LORA) -> subprocess.Popen[str]:
    """Start Snakemake with the profile of SLURM. Real programs: jobs and signals reach no fork of the tests' own."""
    log = (project.root / "snakemake.log").open("a")
    variables = environment() if isinstance(project, ProjectFolder) else os.environ | quick_environment(project)
    command = [*ProjectFolder(project.root).command(*arguments, target=target), *PROFILE]
    return subprocess.Popen(command, cwd=REPOSITORY, env=variables, stdout=log, stderr=log, text=True)


def quick_environment(project: QuickProject) -> dict[str, str]:
    from tests.workflow.quick import _environment

    return _environment(project.root)


def said(project: ProjectFolder | QuickProject) -> str:
    logs = [project.root / "snakemake.log", *sorted(project.root.glob(".snakemake/slurm_logs/**/*.log"))]
    logs += sorted((project.root / "results/logs").glob("*.log"))
    return "\n".join(f"== {path}\n{path.read_text(errors='replace')[-4000:]}" for path in logs if path.exists())


def wait_for(ready: Callable[[], bool], project: ProjectFolder, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not ready():
        assert process.poll() is None, said(project)
        assert time.monotonic() < end, said(project)
        time.sleep(0.1)


def states(project: ProjectFolder) -> list[int]:
    """The steps whose state is saved."""
    folders = (project.root / "results/train/state").glob("step-*")
    return sorted(int(path.name.removeprefix("step-")) for path in folders)


def undisturbed(root: Path, models: Path, clips: Path, **train: Any) -> dict[str, torch.Tensor]:
    """What the same config makes on this machine."""
    project = real_project(root, models, clips, **train)
    outcome = project.snakemake(target=LORA)
    assert outcome.code == 0, outcome.output
    return load_file(project.root / LORA)


def is_same(project: ProjectFolder, expected: dict[str, torch.Tensor]) -> bool:
    found = load_file(project.root / LORA)
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def test_shards_and_two_trainings_with_two_processes_each(
    slurm: Cluster, tmp_path: Path, demo_models: Path, demo_clips: Path
) -> None:
    """One on one node, one on two nodes, at the same time: both train what one process accumulates on this machine."""
    projects = {
        "one": real_project(tmp_path / "one", demo_models, demo_clips, num_processes=2),
        "two": real_project(tmp_path / "two", demo_models, demo_clips, num_processes=2, num_machines=2),
    }
    runs = {name: start(project) for name, project in projects.items()}
    seen: set[str] = set()
    nodes: dict[str, int] = {}
    while any(run.poll() is None for run in runs.values()):
        for line in slurm.run("squeue", "--noheader", "--format=%k|%D|%Z").splitlines():
            comment, count, folder = line.split("|")
            seen.add(comment)
            if comment == "rule_train":
                nodes[Path(folder).name] = int(count)
        time.sleep(0.5)
    for name, run in runs.items():
        assert run.wait() == 0, said(projects[name])
    assert {f"rule_encode_{kind}_wildcards_{shard}" for kind in ("latents", "texts") for shard in "01"} <= seen
    assert nodes == {"one": 1, "two": 2}
    expected = undisturbed(tmp_path / "here", demo_models, demo_clips, gradient_accumulation_steps=2)
    for name, project in projects.items():
        assert is_same(project, expected), name


ENDLESS: dict[str, Any] = {"max_train_steps": 1_000_000, "state_every_n_steps": 1_000_000}
"""A training that saves a state only if it is asked to stop."""


def encoded(root: Path, models: Path, clips: Path, **train: Any) -> ProjectFolder:
    """A project whose dataset is encoded, on this machine, so that only its training is left."""
    project = real_project(root, models, clips, **train)
    outcome = project.snakemake("--until", "encode_latents", "encode_texts", target=LORA)
    assert outcome.code == 0, outcome.output
    return project


def steps_done(project: ProjectFolder) -> int:
    metrics = project.root / "results/train/metrics.jsonl"
    return metrics.read_text().count('"grad_norm"') if metrics.exists() else 0


def finish(project: ProjectFolder, saved: int) -> None:
    """The next call, which shall end two steps after what was saved."""
    last = f"train={{max_train_steps: {saved + 2}, state_every_n_steps: 1000000}}"
    run = start(project, "--config", last)
    assert run.wait(DEADLINE_S) == 0, said(project)
    assert f"resuming after step {saved}" in (project.root / "results/logs/train.log").read_text()


def test_a_cancelled_training_resumes_at_the_next_call(
    slurm: Cluster, tmp_path: Path, demo_models: Path, demo_clips: Path
) -> None:
    project = encoded(tmp_path / "project", demo_models, demo_clips, **ENDLESS)
    run = start(project)
    wait_for(lambda: steps_done(project) >= 3, project, run)
    [job] = slurm.jobs("rule_train")
    slurm.run("scancel", job)
    assert run.wait(DEADLINE_S) != 0
    [saved] = states(project)
    assert saved >= 3
    finish(project, saved)
    length = {**ENDLESS, "max_train_steps": saved + 2}
    assert is_same(project, undisturbed(tmp_path / "here", demo_models, demo_clips, **length))


def test_a_training_goes_on_in_a_new_job_and_stops_with_the_run(
    slurm: Cluster, tmp_path: Path, demo_models: Path, demo_clips: Path
) -> None:
    """With `--retries`, as after a time limit; then Ctrl-C cancels the job, and its state is saved again."""
    project = encoded(tmp_path / "project", demo_models, demo_clips, **ENDLESS)
    run = start(project, "--retries", "1")
    wait_for(lambda: steps_done(project) >= 3, project, run)
    [first] = slurm.jobs("rule_train")
    slurm.run("scancel", first)
    wait_for(lambda: bool(slurm.jobs("rule_train").keys() - {first}), project, run)
    [saved] = states(project)
    wait_for(lambda: steps_done(project) > saved, project, run)
    run.send_signal(signal.SIGINT)
    assert run.wait(DEADLINE_S) != 0
    end = time.monotonic() + DEADLINE_S
    while slurm.jobs("rule_train"):
        assert time.monotonic() < end
        time.sleep(0.5)
    assert f"resuming after step {saved}" in (project.root / "results/logs/train.log").read_text()
    assert states(project)[-1] > saved


def test_a_training_saves_its_state_before_its_time_limit(
    slurm: Cluster, tmp_path: Path, demo_models: Path, demo_clips: Path
) -> None:
    """SLURM sends the signal up to a minute early, so it comes one to two minutes after the start."""
    project = encoded(tmp_path / "project", demo_models, demo_clips, **ENDLESS)
    project.set(runtime={"resources": {**ASKED, "train": {**TINY, "runtime": 4}}})
    run = start(project)
    wait_for(lambda: bool(slurm.jobs("rule_train")), project, run)
    [job] = slurm.jobs("rule_train")
    told = slurm.run("scontrol", "show", "job", job)
    assert "TimeLimit=00:04:00" in told
    assert run.wait(DEADLINE_S) != 0
    [saved] = states(project)
    assert saved == steps_done(project) > 0
    log = (project.root / "results/logs/train.log").read_text()
    assert f"saved at step {saved}" in log
    assert "Traceback" not in log
    finish(project, saved)


def jobs_on_gpus(*projects: QuickProject) -> list[tuple[str, float, float, str]]:
    """GPU, begin and end of each job, and its command."""
    lines = [line.split(maxsplit=3) for each in projects for line in (each.root / "gpus.log").read_text().splitlines()]
    return [(gpu, float(begin), float(end), command) for gpu, begin, end, command in lines]


def at_once(jobs: list[tuple[str, float, float, str]]) -> list[tuple[str, str]]:
    """The GPUs of each two jobs that ran at the same time."""
    return [(one[0], two[0]) for one, two in combinations(jobs, 2) if one[1] < two[2] and two[1] < one[2]]


@pytest.fixture
def gpus_of_the_node(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of a node's GPUs, for jobs that SLURM tells nothing of them."""
    names = [f"GPU-{uuid.uuid4()}" for _ in range(GPUS)]
    monkeypatch.setenv(INSTALLED, ",".join(names))
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.setenv(MEET_S, "30")  # on a busy machine jobs that were handed in together begin far apart
    return names


@pytest.mark.parametrize("node", [COUNTING, BOUND])
def test_no_two_jobs_are_on_one_gpu(node: str, slurm: Cluster, tmp_path: Path, gpus_of_the_node: list[str]) -> None:
    """Two projects at once on a node with two GPUs: on one SLURM chooses each job's GPU, on the other hv15 does."""
    projects = [QuickProject.make(tmp_path / name) for name in ("one", "two")]
    for project in projects:
        project.set(runtime={"resources": ASKED})
        (project.root / "gpus.log").touch()
    only_there = ("--set-resources", f"encode_latents:slurm_extra='--nodelist={node}'")
    runs = [start(project, "--until", "encode_latents", *only_there) for project in projects]
    for project, run in zip(projects, runs, strict=True):
        assert run.wait(DEADLINE_S) == 0, said(project)
    jobs = jobs_on_gpus(*projects)
    assert len(jobs) == 2 * 2
    names = gpus_of_the_node if node == COUNTING else [str(number) for number in range(GPUS)]
    assert {gpu for gpu, *_ in jobs} == {*names}
    pairs = at_once(jobs)
    assert pairs, "else this shows nothing"
    assert [pair for pair in pairs if len({*pair}) == 1] == []


def test_experiments_are_trained_at_the_same_time(slurm: Cluster, tmp_path: Path, gpus_of_the_node: list[str]) -> None:
    """Each is a job of its own; what they train on is encoded once."""
    project = QuickProject.make(tmp_path / "project")
    ranks = {name: {"train.network_dim": rank} for name, rank in (("small", 2), ("smaller", 1))}
    project.set(cache={"shards": 1}, runtime={"resources": ASKED}, experiments=ranks)
    (project.root / "gpus.log").touch()
    run = start(
        project,
        "--until",
        "train",
        "--set-resources",
        f"train:slurm_extra='--nodelist={COUNTING}'",
        target="experiments",
    )
    assert run.wait(DEADLINE_S) == 0, said(project)
    jobs = jobs_on_gpus(project)
    assert sorted(command for *_, command in jobs) == ["encode latents", "encode texts", "train", "train"]
    assert (project.root / "results/small/train.safetensors").exists()
    trainings = [job for job in jobs if job[3] == "train"]
    assert {gpu for gpu, *_ in trainings} == {*gpus_of_the_node}
    assert at_once(trainings)
