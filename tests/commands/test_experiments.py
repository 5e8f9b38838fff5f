"""The commands on a project with experiments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hv15 import cli
from hv15.atomic import write_json
from hv15.records.failures import Failure, FailureKind, FailureRecord
from hv15.records.fields import to_json
from hv15.records.paths import ProjectPaths
from tests.comparison.made_up import make_training
from tests.workflow.quick import QuickProject
from tests.workflow.stub_hv15 import write_safetensors
from tests.workflow.test_experiments import with_experiments

Said = pytest.CaptureFixture[str]


@pytest.fixture
def project(tmp_path: Path) -> QuickProject:
    project = QuickProject.make(tmp_path / "project")
    project.set(experiments={"small": {"train.network_dim": 2}, "large": {"train.network_dim": 8}})
    return project


def test_targets_stand_behind_the_project(project: QuickProject, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.main(["why", str(project.root), "experiments"]) == 0
    behind = capsys.readouterr().out
    assert cli.main(["why", str(project.root), "--target", "experiments"]) == 0
    assert capsys.readouterr().out == behind
    assert cli.main(["run", str(project.root), "experiments", "--dry-run"]) == 0
    assert capsys.readouterr().out == behind
    monkeypatch.chdir(project.root)
    assert cli.main(["why", "experiments"]) == 0
    assert capsys.readouterr().out == behind
    assert "small: train the LoRA: not made yet" in behind.splitlines()
    assert cli.main(["why", "--experiment", "small"]) == 0
    own = capsys.readouterr().out
    assert "small: publish the LoRA" in own
    assert "large" not in own


def test_status_counts_experiments_and_names_what_is_left_of_others(project: QuickProject, capsys: Said) -> None:
    lora = project.root / "results/small/lora.safetensors"
    lora.parent.mkdir(parents=True)
    lora.touch()
    (project.root / "results/former/specs").mkdir(parents=True)
    assert cli.main(["status", str(project.root)]) == 0
    said = capsys.readouterr().out
    assert f"experiments: 1 of 2 are made; `hv15 why {project.root} experiments` says what is due" in said
    assert "of no experiment in the config: results/former; delete them if you wish" in said
    assert cli.main(["status", str(project.root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["experiments"] == {"small": True, "large": False}


def test_each_command_works_for_one_by_its_name(project: QuickProject, capsys: Said) -> None:
    root = project.root
    make_training(root, "small", losses=(0.5, 0.4), steps=10)
    (root / "config.yaml").write_text("models: {source: demo}\nexperiments: {small: {}, new: {}, done: {}}\n")
    lora = ProjectPaths(root, "done").lora
    write_safetensors(lora, {"hv15.made_from": "{}"})

    def said(*words: str, code: int = 0) -> str:
        assert cli.main([words[0], str(root), "--experiment", *words[1:]]) == code
        found = capsys.readouterr()
        return found.out + found.err

    assert "small: its training was stopped" in (text := said("status", "small"))
    assert "training: step 10 of 20" in text
    assert "validation: lowest loss 0.4000 after step 10" in text
    assert "done: results/done/lora.safetensors is made" in said("status", "done")
    assert "new: not made yet" in said("status", "new")
    for kind, state in ((FailureKind.STOPPED, "was stopped"), (FailureKind.USER, "failed")):
        paths = ProjectPaths(root, "small")
        record = FailureRecord(rule="train", command=(), failure=Failure("why", "what to do", kind))
        write_json(paths.failure(paths.log("train")), to_json(record))
        assert f"small: its training {state}" in said("status", "small")
    state = json.loads(said("status", "small", "--json"))
    assert (state["steps"], state["total_steps"], state["validation_best"], state["made"]) == (10, 20, 0.4, False)
    assert "made_from" in said("show", "done")
    assert "is not made yet" in (text := said("show", "new", code=2))
    assert f"`hv15 run {root} --experiment new` makes it" in text
    for command in ("status", "show", "why", "plan", "check"):
        assert "no experiment called 'smal'; did you mean 'small'?" in said(command, "smal", code=2), command
    assert "no training is in its steps now" in said("sample-now", "small", code=2)
    assert cli.main(["show", str(root / "results" / "done" / "lora.safetensors")]) == 0


def test_a_run_of_one_makes_what_its_name_stands_for(project: QuickProject, capsys: Said) -> None:
    assert cli.main(["run", str(project.root), "--experiment", "small", "--dry-run"]) == 0
    own = capsys.readouterr().out
    assert cli.main(["why", str(project.root), "results/small/lora.safetensors"]) == 0
    assert capsys.readouterr().out == own
    with_experiments(project, {"small": {"sample.flow_shift": 2}}, datasets=[])
    assert cli.main(["run", str(project.root), "--experiment", "small", "--dry-run"]) == 0
    assert "small: decode to video one" in capsys.readouterr().out, "without a dataset, its samples"


def test_a_wrong_value_is_found_by_check(project: QuickProject, capsys: Said) -> None:
    with_experiments(project, {"wrong": {"train.network_dim": "many"}, "good": {}})
    assert cli.main(["check", str(project.root)]) == 2
    assert "experiments.wrong.train.network_dim: found 'many'" in capsys.readouterr().out
