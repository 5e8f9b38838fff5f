"""What is due after each edit of the table (tests/workflow/edits.py), and that nothing is when that is made.

The planner decides and stand-ins make what is due, in this process, without Snakemake. What Snakemake makes of the
decisions is tested in test_staleness.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hv15.errors import UserError
from hv15.project import Project
from tests.workflow.edits import EDITS, ONE, TWO, Edit, lose_manifests
from tests.workflow.finished import PlannedProject, why
from tests.workflow.quick import CLIPS, TEXTS, Outcome


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PlannedProject:
    """A project on which everything was made once."""
    project = PlannedProject.make(tmp_path_factory.mktemp("prepared") / "project")
    outcome = project.make_due()
    assert (outcome.clips, outcome.texts) == (len(CLIPS), TEXTS)
    return project


@pytest.fixture
def project(prepared: PlannedProject, tmp_path: Path) -> PlannedProject:
    return prepared.copied(tmp_path / "project", everything=True)


def jobs_of(outcome: Outcome) -> dict[str, int]:
    """Those that encode are counted by what they encode, and a sheet comes with each sample."""
    return {rule: count for rule, count in outcome.jobs.items() if not rule.startswith(("encode", "stage sheet"))}


LIKE_OTHERS = {
    *("two captions swapped", "a clip copied", "a quantised base", "a prompts file", "several seeds"),
    *("the last step published by its number", "an earlier step of another training"),
    *("more shards", "more shards and a prompt's seed", "a lost store", "a lost store and a prompt added"),
    *("lost manifests", "lost texts' manifests and a prompt's seed", "manifests of another version and a training"),
    *("a lost training", "a lost video", "torn latents"),
}
"""Edits of which a similar one is always tried."""
IN_FILES = [
    pytest.param(case, id=case.name, marks=pytest.mark.slow if case.name in LIKE_OTHERS else ())
    for case in EDITS
    if not case.options
]


@pytest.mark.parametrize("case", IN_FILES)
def test_only_what_changed_is_due(case: Edit, project: PlannedProject) -> None:
    case.edit(project)
    outcome = project.make_due()
    assert (jobs_of(outcome), outcome.clips, outcome.texts) == (case.jobs, case.clips, case.texts)
    assert project.due() == []


@pytest.mark.parametrize("damage", [lose_manifests, lambda project: project.set(cache={"shards": 3})])
def test_commands_know_what_is_encoded(damage: Callable[[PlannedProject], None], project: PlannedProject) -> None:
    """Whatever became of the manifests: at the latest, the next run makes them again."""
    damage(project)
    project.make_due()
    opened = Project(project.root / "config.yaml")
    assert len(opened.latents.entries()) == len(CLIPS)
    assert len(opened.texts.entries()) == TEXTS


def test_back_and_forth_between_two_configs_encodes_once(project: PlannedProject) -> None:
    tiles, whole = {"vae_sample_size": 128}, {"vae_sample_size": 0}
    found = []
    for settings in (tiles, whole, tiles):
        project.set(cache=settings)
        outcome = project.make_due()
        found.append((outcome.clips, outcome.jobs["train"]))
    assert found == [(len(CLIPS), 1), (0, 1), (0, 1)]


def test_a_clip_of_the_validation_is_encoded_and_trains_nothing(project: PlannedProject) -> None:
    others = project.root / "others"
    others.mkdir()
    (others / "elk.mp4").write_bytes(b"the video elk")
    (others / "elk.txt").write_text("an elk that runs")
    own = {"video_directory": "others", "resolution": [64, 64], "target_frames": [9]}
    project.set(train={"validation": {"datasets": [own], "every_n_steps": 1}})
    outcome = project.make_due()
    assert (outcome.clips, outcome.texts, outcome.jobs["train"]) == (1, 1, 0)
    assert project.due() == []


def test_a_changed_mask_is_encoded_alone(project: PlannedProject) -> None:
    """And the LoRA is trained again, but not sampled with what is still the same text."""
    project.set(cache={"shards": 1})
    project.make_due()
    mask = project.clips / "cat.mask.png"
    for content, words in (
        (b"a mask", "clips/cat.mp4 has a mask now"),
        (b"another", "mask of clips/cat.mp4 changed"),
    ):
        mask.write_bytes(content)
        assert words in why(project)["train"]
        outcome = project.make_due()
        assert (outcome.clips, outcome.texts) == (0, 0)
        assert (outcome.jobs["encode masks"], outcome.jobs["train"]) == (1, 1)
    assert project.due() == []
    mask.unlink()
    assert "clips/cat.mp4 has no mask any more" in why(project)["train"]
    outcome = project.make_due()
    assert (outcome.jobs["encode masks"], outcome.jobs["train"]) == (0, 1)


def test_a_moving_average_is_published_beside_the_lora(project: PlannedProject) -> None:
    """It comes with a training of its own, and is restored with the LoRA."""
    project.set(train={"ema_decay": 0.99})
    assert project.make_due().jobs["train"] == 1
    results = project.root / "results"
    files = {kind: (results / f"{kind}.ema.safetensors") for kind in ("train", "lora")}
    assert files["lora"].read_bytes() == files["train"].read_bytes()
    files["train"].unlink()
    assert jobs_of(project.make_due()) == {}
    assert files["train"].read_bytes() == files["lora"].read_bytes()


def test_a_step_is_published_and_the_last_one_comes_back(project: PlannedProject) -> None:
    """Nothing is trained for either, not even with the kept copies lost, and the same bytes come back."""
    results = project.root / "results"
    last = (results / "lora.safetensors").read_bytes()
    project.set(train={"publish_step": 1})
    assert "train.publish_step not set -> 1" in why(project)["publish"]
    project.make_due()
    assert (results / "lora.safetensors").read_bytes() == (results / "checkpoints/1/lora.safetensors").read_bytes()
    shutil.rmtree(results / "train")
    (results / "checkpoints/1/lora.safetensors").unlink()
    project.set_prompts(ONE, TWO)
    outcome = project.make_due()
    assert (outcome.jobs["stage lora"], outcome.jobs["stage denoise"]) == (0, 1)
    project.set(train={"publish_step": None})
    outcome = project.make_due()
    assert (outcome.jobs["train"], outcome.jobs["stage shard"]) == (0, 1)
    assert (results / "lora.safetensors").read_bytes() == last


def test_samples_of_checkpoints_are_made_once(project: PlannedProject) -> None:
    assert project.make_due("checkpoint_grid").jobs == {"stage lora": 1, "stage shard": 1, "stage grid": 1}
    assert project.due("checkpoint_grid") == []


def test_a_step_that_is_gone_is_refused_with_those_that_are_there(project: PlannedProject) -> None:
    (project.root / "results/train/checkpoints/lora-step000001.safetensors").unlink()
    project.set(train={"publish_step": 1})
    with pytest.raises(UserError, match=r"train\.publish_step: the LoRA after step 1 is not kept; there are 2"):
        project.due()
    project.set(train={"seed": 5})  # another training, which passes that step
    assert "train" in project.due()
