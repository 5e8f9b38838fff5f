"""kill -9 while encoding and while training, and Ctrl-C: the next call finishes with the undisturbed LoRA."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from hv15.records.outputs import LATENTS, VIDEO
from tests.workflow.conftest import make_project
from tests.workflow.project import REPOSITORY, ProjectFolder, environment, tiny_models

pytestmark = pytest.mark.slow

LORA = "results/train.safetensors"
DEADLINE_S = 300.0


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, demo_models: Path, demo_clips: Path) -> bytes:
    """The LoRA of a run that nobody disturbed."""
    project = prepared(tmp_path_factory.mktemp("undisturbed"), demo_models, demo_clips)
    outcome = project.snakemake(target=LORA)
    assert outcome.code == 0, outcome.output
    return (project.root / LORA).read_bytes()


def prepared(root: Path, demo_models: Path, demo_clips: Path) -> ProjectFolder:
    """Long enough to be hit in the middle: a state after each of 40 steps."""
    project = make_project(root, demo_models, demo_clips)
    project.set(cache={"shards": 1}, train={"max_train_steps": 40, "optimizer_type": "AdamW8bit"})
    return project


def start(project: ProjectFolder, ready: Callable[[], bool], target: str = LORA) -> subprocess.Popen[bytes]:
    """Start Snakemake in a process group of its own, as a terminal does, and wait for a condition."""
    process = subprocess.Popen(
        project.command(target=target),
        cwd=REPOSITORY,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + DEADLINE_S
    while not ready():
        assert process.poll() is None, "the workflow ended before it could be killed"
        assert time.monotonic() < deadline, "the workflow did not get to the point where it is killed"
        time.sleep(0.01)
    return process


def kill_when(project: ProjectFolder, ready: Callable[[], bool], target: str = LORA) -> None:
    """Kill the whole process tree with SIGKILL in the middle."""
    process = start(project, ready, target)
    tree = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for each in tree:
        if each.is_running():
            os.kill(each.pid, signal.SIGKILL)
    psutil.wait_procs(tree, timeout=60)
    process.wait(timeout=60)


def finish(project: ProjectFolder) -> bytes:
    """What a user does next: the lock of the dead call is refused with the cure, then a plain call finishes."""
    refused = project.snakemake(target=LORA)
    assert refused.code != 0
    assert "--unlock" in refused.output
    assert project.snakemake("--unlock", target=LORA).code == 0
    outcome = project.snakemake(target=LORA)
    assert outcome.code == 0, outcome.output
    return (project.root / LORA).read_bytes()


def test_killed_while_encoding(tmp_path: Path, demo_models: Path, demo_clips: Path, undisturbed: bytes) -> None:
    project = prepared(tmp_path, demo_models, demo_clips)
    store = project.root / "cache" / "store" / "latents"
    kill_when(project, lambda: len(list(store.glob("*/??/[!.]*.safetensors"))) >= 2)
    before = {path: path.stat().st_mtime_ns for path in store.glob("*/??/[!.]*.safetensors")}
    assert len(before) >= 2
    assert finish(project) == undisturbed
    assert {path: path.stat().st_mtime_ns for path in before} == before, "an item was encoded twice"


def test_killed_while_training(tmp_path: Path, demo_models: Path, demo_clips: Path, undisturbed: bytes) -> None:
    project = prepared(tmp_path, demo_models, demo_clips)
    state = project.root / "results" / "train" / "state"
    kill_when(project, lambda: (state / "step-000005").exists())
    assert not (project.root / LORA).exists()
    assert finish(project) == undisturbed
    log = (project.root / "results" / "logs" / "train.log").read_text()
    assert "resuming after step" in log


def test_stopped_by_ctrl_c_while_training(
    tmp_path: Path, demo_models: Path, demo_clips: Path, undisturbed: bytes
) -> None:
    project = prepared(tmp_path, demo_models, demo_clips)
    state = project.root / "results" / "train" / "state"
    process = start(project, lambda: (state / "step-000005").exists())
    os.killpg(process.pid, signal.SIGINT)  # the terminal sends it to all of the group
    assert process.wait(timeout=60) != 0
    log = (project.root / "results" / "logs" / "train.log").read_text()
    assert "saved at step" in log
    assert "Traceback" not in log
    outcome = project.snakemake(target=LORA)
    assert outcome.code == 0, outcome.output
    assert (project.root / LORA).read_bytes() == undisturbed


def test_killed_while_sampling(tmp_path: Path, demo_models: Path) -> None:
    """What a job of several samples has finished is not made again, and is the same as without the disturbance."""
    names = ("one", "two", "three")
    size = {"video_size": [64, 64], "video_length": 5, "infer_steps": 100, "guidance_scale": 1.0}
    prompts = [{"name": name, "prompt": f"{name} circles"} for name in names]
    projects = {kind: ProjectFolder(tmp_path / kind) for kind in ("killed", "undisturbed")}
    for project in projects.values():
        project.root.mkdir()
        project.write({"models": tiny_models(demo_models), "sample": {**size, "prompts": prompts}})
    project = projects["killed"]
    untaken = project.root / "results/samples/.untaken/samples"
    kill_when(project, lambda: (untaken / "one.latents.safetensors").exists(), target="samples")
    assert not (project.root / "results/samples/three.mp4").exists()
    made = (untaken / "one.latents.safetensors").read_bytes()
    assert project.snakemake("--unlock", target="samples").code == 0
    outcome = project.snakemake(target="samples")
    assert outcome.code == 0, outcome.output
    log = (project.root / "results/logs/sample_shard.0.log").read_text()
    assert "denoise one" not in log
    assert "denoise three 100%" in log
    assert projects["undisturbed"].snakemake(target="samples").code == 0
    files = {kind: project.root / "results/samples" for kind, project in projects.items()}
    assert (files["killed"] / "one.latents.safetensors").read_bytes() == made
    for name in names:
        for output in (LATENTS, VIDEO):
            one, other = (folder / f"{name}{output.suffix}" for folder in files.values())
            assert one.read_bytes() == other.read_bytes(), f"{name}{output.suffix}"
