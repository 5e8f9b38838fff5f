"""Experiments in the workflow: what each has of its own, what they share, and what a call makes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from snakemake_interface_executor_plugins.utils import TargetSpec

from hv15.errors import UserError
from hv15.project import Project
from hv15.workflow import WorkflowProject, make_planner
from hv15.workflow.planner import Planner
from hv15.workflow.why import Reasons
from tests.workflow.quick import CLIPS, TEXTS, QuickProject

if TYPE_CHECKING:
    from snakemake.io import Wildcards
    from snakemake.workflow import Workflow

SMALL: dict[str, object] = {"train.network_dim": 2}
ALL = ("experiments",)


def plan(project: QuickProject, *targets: str) -> Planner:
    return make_planner(Project(project.root / "config.yaml"), targets=targets)


def due(project: QuickProject, *targets: str) -> dict[str, str]:
    """Stage -> its reasons, of all that would run."""
    opened = Project(project.root / "config.yaml")
    reasons = Reasons(opened, make_planner(opened, targets=targets))
    return {stage.name: "; ".join(stage.reasons) for stage in reasons.due().stages}


def with_experiments(project: QuickProject, experiments: dict[str, dict[str, object]], **sections: object) -> None:
    """Replace the experiments of a project; other sections are merged."""
    project.set(experiments=None)
    project.set(experiments=experiments, **sections)


@pytest.fixture
def project(tmp_path: Path) -> QuickProject:
    project = QuickProject.make(tmp_path / "project")
    project.set(experiments={"small": SMALL, "smaller": {"train.network_dim": 1}})
    return project


def test_a_target_makes_its_run_alone(project: QuickProject) -> None:
    """And what the base config has for all: models, and what is encoded."""
    encoding = {"demo_models", "encode_latents.0", "encode_latents.1", "encode_texts.0", "encode_texts.1"}
    own = {"train", "sample_latents.one", "sample_video.one", "publish"}
    assert due(project).keys() == encoding | own
    for target in ("results/small/lora.safetensors", "small/publish"):
        assert due(project, target).keys() == encoding | {f"small/{name}" for name in own}
    both = {f"{run}/{name}" for run in ("small", "smaller") for name in own}
    assert due(project, *ALL).keys() == encoding | both | {"comparison"}
    assert due(project, "results/small/samples/one.mp4").keys() == encoding | {
        f"small/{name}" for name in own - {"publish"}
    }


def test_without_experiments_the_target_is_refused(project: QuickProject) -> None:
    with_experiments(project, {})
    with pytest.raises(UserError, match="the config has no experiments"):
        plan(project, *ALL)
    outcome = project.snakemake("-n", target="experiments")
    assert outcome.code == 1
    assert "the config has no experiments" in outcome.output


def test_what_is_encoded_otherwise_has_manifests_of_its_own(project: QuickProject) -> None:
    prompts = [{"name": "two", "prompt": "a blue square"}]
    with_experiments(project, {"words": {"sample.prompts": prompts}, "tiles": {"cache.vae_sample_size": 128}})
    stages = plan(project, *ALL).stages
    assert {"words/encode_texts.0", "tiles/encode_latents.0"} <= stages.keys()
    assert not {"words/encode_latents.0", "tiles/encode_texts.0"} & stages.keys()
    manifests = {str(path) for path in stages["tiles/train"].inputs["manifests"]}
    assert {path.split("/")[1] for path in manifests} == {"tiles", "manifests"}


def test_an_equal_training_is_copied(project: QuickProject) -> None:
    with_experiments(project, {"first": SMALL, "shift": {**SMALL, "sample.flow_shift": 2}, "small": SMALL})
    found = due(project, *ALL)
    assert found["first/train"] == "not made yet"
    for name in ("shift", "small"):
        assert found[f"{name}/train"] == "it is the same as results/first/train.safetensors, which is copied"
    assert found["shift/sample_latents.one"] == "not made yet"
    assert "small/sample_latents.one" not in found, "its video is copied, and nothing else needs them"
    assert "results/first/samples/one.mp4" in found["small/sample_video.one"]


def test_the_base_config_is_trained_for_an_experiment_only_if_it_is_asked_for(project: QuickProject) -> None:
    with_experiments(project, {"same": {}, "small": SMALL})
    assert due(project, *ALL)["same/train"] == "not made yet"
    found = due(project, *ALL, "results/lora.safetensors")
    assert (found["train"], "results/train.safetensors" in found["same/train"]) == ("not made yet", True)


def test_samples_without_the_lora_are_made_once(project: QuickProject) -> None:
    project.set(sample={"with_base": True})
    found = due(project, *ALL)
    assert found["small/sample_video.one.base"] == "not made yet"
    assert "is copied" in found["smaller/sample_video.one.base"]
    assert "smaller/sample_latents.one.base" not in found


def test_wrong_settings_of_one_are_reported_with_their_place(project: QuickProject) -> None:
    with_experiments(project, {"small": {"train.network_dim": "many"}, "other": {"train.seed": -1}})
    with pytest.raises(
        UserError, match=r"experiments.other.train.seed: found -1[\s\S]*experiments.small.train.network"
    ):
        plan(project, *ALL)
    assert "train" in due(project), "the base config can be made meanwhile"


def test_a_job_on_another_machine_plans_its_own_run(project: QuickProject) -> None:
    """There Snakemake names no target, only the job."""
    jobs = [TargetSpec("train", {"results": "results/small"})]
    settings = SimpleNamespace(targets=frozenset(), target_jobs=jobs)
    sent = SimpleNamespace(is_main_process=False, dryrun=False, non_local_exec=True, dag_settings=settings)
    opened = WorkflowProject(Project(project.root / "config.yaml"), cast("Workflow", sent))
    [spec] = opened.inputs("train")(cast("Wildcards", {"results": "results/small"}))["spec"]
    assert spec == "results/small/specs/train.json"


@pytest.mark.slow
def test_snakemake_makes_each_once(project: QuickProject) -> None:
    project.set(
        sample={"with_base": True},
        experiments={"average": {"train.ema_decay": 0.9}, "same": SMALL},
    )
    outcome = project.snakemake(target="experiments")
    assert outcome.code == 0, outcome.output
    assert (outcome.clips, outcome.texts) == (len(CLIPS), TEXTS)
    assert (outcome.jobs["train"], outcome.jobs["train copied"]) == (3, 1)
    results = project.root / "results"
    for name in ("average", "same", "small", "smaller"):
        assert (results / name / "lora.safetensors").exists()
        assert (results / name / "lora.ema.safetensors").exists() == (name == "average")
    assert not (results / "lora.safetensors").exists()
    assert (results / "same/lora.safetensors").read_bytes() == (results / "small/lora.safetensors").read_bytes()
    assert "smaller: Training the LoRA (log: results/smaller/logs/train.log): not made yet" in outcome.output
    assert "Nothing to be done" in project.snakemake(target="experiments").output
