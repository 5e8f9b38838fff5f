"""What `train.continue_from` stands for, and that it stays so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hv15.errors import UserError
from hv15.project import Project
from hv15.records.spec import Spec
from hv15.records.training import TrainingRecord
from hv15.train.origin import Origin
from hv15.train.past import past_of
from hv15.train.told_config import told_config
from tests.project.conftest import MakeProject
from tests.workflow.stub_hv15 import write_safetensors, write_state

GO_ON: dict[str, Any] = {"learning_rate": 0.3, "continue_from": "latest"}


def record_of(project: Project) -> TrainingRecord:
    return TrainingRecord(past_of(project.settings.train, project.training_spec), project.settings.dump())


def train(project: Project, *steps: int) -> None:
    """Leave what a training leaves; what was there is moved aside."""
    record, training = record_of(project), project.paths.training
    if training.exists():
        training.rename(training.with_name(f"train-{len(list(training.parent.iterdir()))}"))
    for step in steps:
        write_state(training, record, step)
    record.write(training)


def start(project: Project) -> Origin:
    assert project.start is not None
    return project.start


def test_the_latest_state(open_project: MakeProject) -> None:
    train(open_project(), 4, 6)
    found = start(open_project(train=GO_ON))
    assert (found.kind, found.step, found.samples, found.reset_optimizer) == ("state", 6, 6, False)
    assert open_project(train=GO_ON).training_spec["train"]["continue_from"] == found.to_json()  # type: ignore[index,call-overload]
    assert start(open_project(train={**GO_ON, "reset_optimizer": True})).reset_optimizer


def test_a_training_without_a_state_yet_is_passed_over(open_project: MakeProject) -> None:
    """As when the first try of other settings failed at once."""
    train(open_project(), 4)
    train(open_project(train={"seed": 5}))
    assert start(open_project(train=GO_ON)).step == 4


def in_the_spec(project: Project) -> None:
    Spec(project.training_spec, {"continue_from": "latest"}).write(project.paths.spec("train"))
    shutil.rmtree(project.paths.training)
    train(project, 9)
    (project.paths.training / "run.json").unlink()


def in_the_folder(project: Project) -> None:
    train(project, 9)


def in_the_lora(project: Project) -> None:
    told = {
        "hv15.made_from": json.dumps(project.training_spec),
        "hv15.config": json.dumps(project.settings.dump()),
    }
    write_safetensors(project.paths.lora, told)


def in_the_lora_of_a_training(project: Project) -> None:
    """It tells the digest of the state."""
    spec = project.training_spec
    told = {"hv15.made_from": json.dumps(spec), "hv15.config": json.dumps(told_config(project.settings.dump(), spec))}
    assert '"latest"' not in told["hv15.config"]
    write_safetensors(project.paths.lora, told)


PLACES = [in_the_spec, in_the_folder, in_the_lora]


@pytest.mark.parametrize("told", [*PLACES, in_the_lora_of_a_training])
def test_it_stays_what_it_was(open_project: MakeProject, told: Callable[[Project], None]) -> None:
    train(open_project(), 4)
    before = start(open_project(train=GO_ON))
    told(open_project(train=GO_ON))
    assert start(open_project(train=GO_ON)) == before
    assert start(open_project(train={**GO_ON, "max_train_steps": 5})) == before, "its past is the same"
    assert start(open_project(train={**GO_ON, "reset_optimizer": True})).digest == before.digest


def test_another_past_finds_the_latest_of_then(open_project: MakeProject) -> None:
    train(open_project(), 4)
    in_the_folder(open_project(train=GO_ON))
    assert start(open_project(train={**GO_ON, "learning_rate": 0.1})).step == 9
    longer = {**GO_ON, "lr_scheduler": "cosine"}
    assert start(open_project(train=longer)).step == 9


@pytest.mark.parametrize("told", PLACES)
def test_a_path_into_the_results_stays_too(open_project: MakeProject, told: Callable[[Project], None]) -> None:
    path = "results/train/state/step-000004"
    train(open_project(), 4)
    before = start(open_project(train={**GO_ON, "continue_from": path}))
    project = open_project(train={**GO_ON, "continue_from": path})
    told(project)
    if told is in_the_spec:
        Spec(project.training_spec, {"continue_from": path}).write(project.paths.spec("train"))
    assert start(open_project(train={**GO_ON, "continue_from": path})) == before
    if told is in_the_folder:
        other = "results/train/state/step-000009"
        assert start(open_project(train={**GO_ON, "continue_from": other})).step == 9, "another setting is obeyed"


def test_a_path_that_is_gone_is_what_the_lora_tells(open_project: MakeProject) -> None:
    path = "results/train/state/step-000004"
    options = {"train": {**GO_ON, "continue_from": path}}
    train(open_project(), 4)
    before = start(open_project(**options))
    in_the_lora_of_a_training(open_project(**options))
    shutil.rmtree(open_project(**options).paths.training)
    assert start(open_project(**options)) == before
    train(open_project(train={"seed": 5}), 4)
    assert start(open_project(**options)) != before, "it is there, and another one"


def test_a_file_elsewhere_counts_by_its_content(open_project: MakeProject, root: Path) -> None:
    write_safetensors(root / "mine.safetensors", {"of": "me"})
    options = {"train": {"continue_from": "mine.safetensors"}}
    before = start(open_project(**options))
    assert before.kind == "lora"
    in_the_lora(open_project(**options))
    write_safetensors(root / "mine.safetensors", {"of": "another"})
    assert start(open_project(**options)) != before
    (root / "mine.safetensors").unlink()
    assert start(open_project(**options)) == before, "it was copied"


@pytest.mark.parametrize("inside", ["", "state/step-000004"])
def test_a_training_of_another_project(open_project: MakeProject, root: Path, inside: str) -> None:
    train(open_project(), 4)
    (root / "results/train").rename(root.parent / "theirs")
    assert start(open_project(train={**GO_ON, "continue_from": f"../theirs/{inside}"})).step == 4


def test_a_digest(open_project: MakeProject) -> None:
    train(open_project(), 4, 6)
    latest = start(open_project(train=GO_ON))
    train(open_project(train={"seed": 7}), 9)
    assert start(open_project(train={"continue_from": latest.digest})) == latest


def test_nothing_to_start_from(open_project: MakeProject) -> None:
    with pytest.raises(UserError, match=r"train\.continue_from: .*train: holds no state") as caught:
        _ = open_project(train=GO_ON).training_spec
    assert "remove the setting to begin anew" in caught.value.hint


def test_a_damaged_state_is_passed_over(open_project: MakeProject) -> None:
    train(open_project(), 4, 6)
    newest = open_project().paths.states / "step-000006/state.json"
    newest.write_text(newest.read_text().replace('"step": 6', '"step": 5'))
    assert start(open_project(train=GO_ON)).step == 4
