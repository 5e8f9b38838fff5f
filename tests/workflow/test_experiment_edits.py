"""What people do to experiments, and what is made again then. The jobs are stand-ins, called without Snakemake."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hv15.cache.collect import use_of
from hv15.cache.register import register
from hv15.project import Project
from hv15.records.paths import ProjectPaths, copy_of_step
from hv15.records.rules import Rule
from tests.workflow import test_experiments
from tests.workflow.finished import finish
from tests.workflow.quick import QuickProject
from tests.workflow.test_experiments import with_experiments

Values = dict[str, object]

PROMPTS = [{"name": "two", "prompt": "a blue square"}]
EXPERIMENTS: dict[str, Values] = {
    "base": {},
    "large": {"train.network_dim": 8},
    "shift": {"train.network_dim": 8, "sample.flow_shift": 2},
    "words": {"sample.prompts": PROMPTS},
}
TARGETS = ("experiments", "results/lora.safetensors")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> QuickProject:
    """A project with experiments on which everything was made; each test has a copy."""
    project = QuickProject.make(tmp_path_factory.mktemp("experiments") / "project")
    project.set(sample={"with_base": True})
    with_experiments(project, EXPERIMENTS)
    for run in ("", "large"):  # these are trained, the others are copies
        ProjectPaths(project.root, run).states.mkdir(parents=True)
    finish(project, *TARGETS)
    return project


@pytest.fixture
def project(made: QuickProject, tmp_path: Path) -> QuickProject:
    return made.copied(tmp_path / "project", everything=True)


def due(project: QuickProject, *targets: str) -> dict[str, str]:
    """What would run, without the comparison of all, which is made again whenever one of them changes."""
    found = test_experiments.due(project, *targets)
    return {name: reason for name, reason in found.items() if name != Rule.COMPARISON}


def runs(found: dict[str, str]) -> set[str]:
    """The runs of stages; "" is the base config."""
    return {name.rpartition("/")[0] for name in found}


def change(project: QuickProject, name: str, values: Values | None) -> None:
    """Change an experiment; None removes it."""
    experiments = {**EXPERIMENTS, name: values or {}}
    if values is None:
        del experiments[name]
    with_experiments(project, experiments)


def rename(project: QuickProject, old: str, new: str) -> None:
    with_experiments(project, {new if name == old else name: values for name, values in EXPERIMENTS.items()})


def test_nothing_is_due_when_all_is_made(project: QuickProject) -> None:
    assert due(project, *TARGETS) == {}
    for name in EXPERIMENTS:
        assert (project.root / "results" / name / "lora.safetensors").exists()


def test_a_copied_training_is_known_in_its_own_folder(project: QuickProject) -> None:
    """With its dataset and the copies that it kept, so that it can go on, and a step be published."""
    large, shift = (ProjectPaths(project.root, name) for name in ("large", "shift"))
    assert shift.trained_dataset.read_bytes() == large.trained_dataset.read_bytes()
    assert [path.name for path in sorted(shift.checkpoints.iterdir())] == [
        path.name for path in sorted(large.checkpoints.iterdir())
    ]


@pytest.mark.parametrize("name", ["large", "shift"])
def test_an_edit_of_one_concerns_that_one(project: QuickProject, name: str) -> None:
    change(project, name, {"train.network_dim": 8, "train.learning_rate": 0.3})
    found = due(project, *TARGETS)
    assert runs(found) == {name}
    assert found[f"{name}/train"].startswith("train.learning_rate 0.0001 -> 0.3")


def test_an_edit_of_the_base_config_concerns_all_that_have_no_value_of_their_own(project: QuickProject) -> None:
    project.set(train={"network_dim": 8})
    found = due(project, *TARGETS)
    assert runs(found) == {"", "base", "words"}
    assert "the same as results/large/train.safetensors, which is copied" in found["base/train"]


def test_a_removed_experiment_leaves_what_it_made(project: QuickProject) -> None:
    for name in EXPERIMENTS:
        change(project, name, None)
        assert due(project, *TARGETS) == {}, name
        assert (project.root / f"results/{name}/lora.safetensors").exists()


def test_a_renamed_experiment_trains_and_samples_nothing(project: QuickProject) -> None:
    rename(project, "large", "big")
    found = due(project, *TARGETS)
    assert runs(found) == {"big"}
    copied = [name for name, reason in found.items() if "which is copied" in reason]
    assert "big/train" in copied
    assert {name for name in found if "sample" in name} <= {*copied}
    finish(project, *TARGETS)
    assert due(project, *TARGETS) == {}
    lora = [(project.root / f"results/{name}/lora.safetensors").read_bytes() for name in ("large", "big")]
    assert lora[0] == lora[1]


def test_a_prompt_of_one_is_encoded_and_sampled_there_alone(project: QuickProject) -> None:
    change(project, "words", {"sample.prompts": [*PROMPTS, {"name": "three", "prompt": "a green star"}]})
    found = due(project, *TARGETS)
    assert runs(found) == {"words"}
    assert "words/train" not in found
    new = {name for name in found if "three" in name or "encode" in name}
    assert {"words/sample_latents.three", "words/sample_latents.three.base"} <= new
    assert all("new text of sample three" in found[name] for name in new if "encode" in name)


@pytest.mark.parametrize("lost", ["results/manifests", "results/words/manifests"])
def test_lost_manifests_matter_only_to_what_is_made(project: QuickProject, lost: str) -> None:
    shutil.rmtree(project.root / lost)
    found = due(project, *TARGETS)
    assert all("encode" in name for name in found), found
    change(project, "large", {"train.network_dim": 8, "train.seed": 7})
    assert "large/train" in due(project, *TARGETS)


@pytest.mark.parametrize("product", ["train.safetensors", "samples/one.mp4"])
def test_a_lost_product_is_copied_or_restored(project: QuickProject, product: str) -> None:
    (project.root / "results/shift" / product).unlink()
    found = due(project, *TARGETS)
    if product == "train.safetensors":
        assert found == {}, "its published copy takes its place"
    else:
        assert found.keys() == {"shift/sample_video.one", "shift/publish"}


def test_the_settings_in_a_lora_replay_it_alone(project: QuickProject) -> None:
    for name in ("", *EXPERIMENTS):
        config = _told(ProjectPaths(project.root, name).lora)
        assert not {"experiments", "sweep"} & config.keys()
    assert _told(ProjectPaths(project.root, "large").lora)["train"]["network_dim"] == 8  # type: ignore[index]


def _told(lora: Path) -> dict[str, object]:
    from tests.workflow.stub_hv15 import metadata_of

    found: dict[str, object] = json.loads(metadata_of(lora)["hv15.config"])
    return found


def test_what_experiments_need_stays_in_the_store(project: QuickProject) -> None:
    """Also what only one of them needs, and one that the config no longer has."""
    change(project, "words", None)
    opened = Project(project.root / "config.yaml")
    register(opened.cache, project.root)
    use = use_of(opened.cache)
    words = ProjectPaths(project.root, "words")
    assert any(words.manifests("text").iterdir())
    named = {item for items in use.needed.values() for item, projects in items.items() if projects}
    store = {path.stem for path in (opened.cache / "store").rglob("*.safetensors")}
    assert store <= named


def test_a_step_of_a_copied_training_can_be_published(project: QuickProject) -> None:
    change(project, "shift", {**EXPERIMENTS["shift"], "train.publish_step": 1})
    found = due(project, *TARGETS)
    assert "shift/train" not in found
    assert "shift/keep_checkpoint.1" in found
    finish(project, *TARGETS)
    assert due(project, *TARGETS) == {}


def test_a_picked_copy_of_a_sweeps_training_is_a_copy_if_that_has_kept_the_step(project: QuickProject) -> None:
    """It is what `hv15 pick` says to write for one of a sweep."""
    picked: Values = {"train.network_dim": 8, "train.publish_step": 1}
    change(project, "picked", picked)
    assert "which is copied" in due(project, *TARGETS)["picked/train"]
    for run in ("large", "shift"):
        (ProjectPaths(project.root, run).checkpoints / copy_of_step(1)).unlink()
    assert due(project, *TARGETS)["picked/train"] == "not made yet", "a training that keeps the step on its way"


def test_one_that_is_asked_for_alone_copies_what_the_others_have(project: QuickProject) -> None:
    change(project, "twin", {"train.network_dim": 8, "sample.flow_shift": 3})
    target = "results/twin/lora.safetensors"
    assert "which is copied" in due(project, target)["twin/train"]
    finish(project, target)
    assert due(project, target) == {}
