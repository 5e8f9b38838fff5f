"""`hv15 pick`: which step a word means, what it writes into the config, and what it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from hv15.cli import main
from hv15.commands.checkpoints import choose, with_step
from hv15.commands.checks import publish_checks
from hv15.errors import UserError
from hv15.project import Project
from hv15.records.metadata import CONFIG, MADE_FROM, SAMPLE, STEPS
from hv15.records.outputs import LATENTS
from hv15.records.spec import Spec
from tests.project.conftest import add_clip
from tests.workflow.stub_hv15 import write_safetensors

TEXT = """\
# mine
models: {source: demo}
datasets:
  - {video_directory: clips, resolution: [64, 64], target_frames: [9]}
train:
  max_train_steps: 6   # short
  save_every_n_steps: 2
sample:
  prompts:
    - {name: one, prompt: a red circle}
"""


def copy(project: Project, file: Path, step: int) -> None:
    """A LoRA of the project's training."""
    spec, config = json.dumps(project.training_spec), json.dumps(project.settings.dump())
    write_safetensors(file, {MADE_FROM: spec, STEPS: str(step), CONFIG: config})


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A finished training of six steps, of which step 2 (as an epoch), step 4 (the best) and the last are kept."""
    add_clip(tmp_path, "cat")
    (tmp_path / "config.yaml").write_text(TEXT)
    project = Project(tmp_path / "config.yaml")
    copy(project, project.paths.trained, 6)
    copy(project, project.paths.checkpoints / "lora-epoch0001.safetensors", 2)
    copy(project, project.paths.best, 4)
    return project


def picked(project: Project, word: str) -> str:
    choose(project.config, word)
    return project.config.read_text()


def test_one_line_is_added_and_removed(project: Project) -> None:
    line = "  publish_step: 2\n"
    assert picked(project, "2") == TEXT.replace("sample:\n", f"{line}sample:\n")
    assert picked(project, "best") == TEXT.replace("sample:\n", f"{line}sample:\n").replace("2\nsample", "4\nsample")
    assert picked(project, "final") == TEXT
    assert picked(project, "6") == TEXT
    assert "already" in choose(project.config, "final")


def test_a_config_without_the_section_gets_it() -> None:
    assert with_step("task: t2v\n", 3) == "task: t2v\ntrain:\n  publish_step: 3\n"
    assert with_step("task: t2v\n", None) == "task: t2v\n"


@pytest.mark.parametrize("word", ["3", "7", "0", "-1", "first"])
def test_anything_else_is_refused(word: str, project: Project) -> None:
    with pytest.raises(UserError) as refused:
        choose(project.config, word)
    if word in "37":
        assert "there are 2, 4, 6" in refused.value.message
    assert project.config.read_text() == TEXT


def test_an_experiment_has_a_step_of_its_own() -> None:
    """In the form in which it is written; null where the config itself publishes a step, and this one the last."""
    plain = "experiments:\n  small: {train.network_dim: 2} # mine\n  other:\n"
    assert with_step(plain, 3, "small") == plain.replace("2}", "2, train.publish_step: 3}")
    picked = with_step(plain, 3, "other")
    assert yaml.safe_load(picked)["experiments"]["other"] == {"train.publish_step": 3}
    assert with_step(with_step(plain, 3, "small"), None, "small") == plain
    assert with_step(plain, None, "small") == plain
    sections = "experiments:\n  small:\n    train:\n      network_dim: 2\n"
    assert with_step(sections, 3, "small") == f"{sections}      publish_step: 3\n"
    with_base = f"train: {{publish_step: 2}}\n{plain}"
    own = yaml.safe_load(with_step(with_base, None, "small"))
    assert (own["train"], own["experiments"]["small"]["train.publish_step"]) == ({"publish_step": 2}, None)


def test_the_step_of_an_experiment_is_picked(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.config.write_text(f"{TEXT}experiments:\n  small: {{train.network_dim: 2}}\nsweep: {{seeds: [1]}}\n")
    for name in ("small", "seed-1"):
        experiment = Project(project.config, experiment=name)
        copy(experiment, experiment.paths.trained, 6)
        copy(experiment, experiment.paths.checkpoints / "lora-epoch0001.safetensors", 2)
    assert main(["pick", "2", str(project.config), "--experiment", "small", "--no-run"]) == 0
    assert "small: the LoRA after step 2 is now the one to publish" in capsys.readouterr().out
    chosen = Project(project.config)
    assert chosen.settings.train.publish_step is None
    assert chosen.experiment("small").settings.train.publish_step == 2
    text = project.config.read_text()
    assert main(["pick", "2", str(project.config), "--experiment", "seed-1", "--no-run"]) == 2
    said = capsys.readouterr().err
    assert "seed-1 is made by the sweep" in said
    assert 'seed-1-picked: {"train.seed": 1, "train.publish_step": 2}' in said
    assert main(["pick", "final", str(project.config), "--experiment", "seed-1", "--no-run"]) == 0, "as it is"
    assert project.config.read_text() == text


def test_without_a_best_one_it_says_how_to_get_one(project: Project) -> None:
    project.paths.best.unlink()
    with pytest.raises(UserError, match="lowest validation loss"):
        choose(project.config, "best")


def test_a_best_one_before_the_first_step_is_none_to_publish(project: Project) -> None:
    copy(project, project.paths.best, 0)
    assert 0 not in Project(project.config).kept
    with pytest.raises(UserError, match="before the first step"):
        choose(project.config, "best")
    assert project.config.read_text() == TEXT


def test_a_check_says_that_the_chosen_step_is_gone(project: Project) -> None:
    choose(project.config, "4")
    assert list(publish_checks(Project(project.config))) == []
    project.paths.best.unlink()
    (project.paths.checkpoints / "lora-step000004.safetensors").unlink()
    [found] = publish_checks(Project(project.config))
    assert (found.state, found.place.setting) == ("problem", ("train", "publish_step"))
    assert "the LoRA after step 4 is not kept; there are 2, 6" in found.text


def test_the_copy_gets_the_name_that_the_trainer_leaves_alone(project: Project) -> None:
    choose(project.config, "2")
    assert (project.paths.checkpoints / "lora-step000002.safetensors").exists()


def test_a_step_that_is_still_to_come_can_be_chosen(project: Project) -> None:
    project.paths.trained.unlink()
    choose(project.config, "5")
    assert Project(project.config).settings.train.publish_step == 5


def test_the_command_says_what_it_did(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pick", "4", str(project.config), "--no-run"]) == 0
    assert "the LoRA after step 4 is now the one to publish" in capsys.readouterr().out


def test_show_and_status_say_which_step_it_is(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    choose(project.config, "4")
    chosen = Project(project.config)
    write_safetensors(project.paths.lora, {MADE_FROM: json.dumps(chosen.published_spec), STEPS: "4"})
    main(["show", str(project.paths.lora)])
    assert "the LoRA after step 4 of its training" in capsys.readouterr().out
    main(["status", str(project.config)])
    assert "published: the LoRA after step 4" in capsys.readouterr().out
    choose(project.config, "final")
    main(["status", str(project.config)])
    assert "the LoRA is that after step 4; a run publishes that after the last step" in capsys.readouterr().out


def test_latents_that_are_there_already_are_copied(project: Project, tmp_path: Path) -> None:
    """They come from another stage: no model is loaded, and the bytes are the same."""
    sample = project.samples["one"]
    wanted = sample.denoising(project.trained_digest, project.texts.settings_digest)
    there, out = LATENTS.path(project.paths, "one", 6), tmp_path / "out.latents.safetensors"
    write_safetensors(there, {MADE_FROM: json.dumps(wanted), SAMPLE: sample.to_text()})
    spec = tmp_path / "spec.json"
    Spec(wanted, {"sample": sample.to_json(), "same": str(there)}).write(spec)
    assert main(["stage", "denoise", str(project.config), "--spec", str(spec), "--out", str(out)]) in (0, None)
    assert out.read_bytes() == there.read_bytes()
