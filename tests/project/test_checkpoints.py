"""The LoRA after a step: what it is made from, which copies of it count, and how it is published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from hv15.config import TrainSettings
from hv15.lora.files import read_lora, save_lora
from hv15.project.checkpoints import (
    checkpoint_spec,
    earlier_step,
    keep_checkpoint,
    kept_checkpoints,
    lora_after,
    not_kept,
)
from hv15.project.metadata import read_metadata
from hv15.records.metadata import CONFIG, MADE_FROM, STEPS, VALIDATION_LOSS
from hv15.records.paths import ProjectPaths
from tests.project.conftest import MakeProject
from tests.train.world import run, settings, spec_of
from tests.workflow.stub_hv15 import write_safetensors


def train_of(**options: object) -> TrainSettings:
    return TrainSettings.model_validate({"max_train_steps": 6, **options})


def copy(path: Path, spec: object, step: int, **more: str) -> Path:
    """A file that tells of which training and after which step it is."""
    write_safetensors(path, {MADE_FROM: json.dumps(spec), STEPS: str(step), **more})
    return path


def test_it_depends_on_the_past_and_on_the_step(open_project: MakeProject) -> None:
    def spec(step: int = 3, **train: object) -> object:
        project = open_project(train={"max_train_steps": 6, **train})
        return checkpoint_spec(project.settings.train, project.training_spec, step)

    assert spec() == spec(max_train_steps=8) == spec(publish_step=5)
    assert spec() != spec(step=4)
    assert spec() != spec(seed=7)
    assert spec() != spec(save_precision="bfloat16")
    assert spec(lr_scheduler="cosine") != spec(lr_scheduler="cosine", max_train_steps=8)


def test_the_last_step_is_the_trained_lora() -> None:
    paths, train = ProjectPaths(), train_of()
    assert lora_after(train, None, paths) == lora_after(train, 6, paths) == paths.trained
    assert lora_after(train, 5, paths) == Path("results/checkpoints/5/lora.safetensors")
    patience = {"fraction": 0.1, "patience": 2, "every_n_steps": 1}  # it may end earlier
    assert earlier_step(train_of(validation=patience), 6) == 6


def test_the_copies_of_the_training_count(open_project: MakeProject) -> None:
    project = open_project(train={"max_train_steps": 6})
    train, spec, paths = project.settings.train, project.training_spec, project.paths
    other = open_project(train={"max_train_steps": 6, "seed": 7}).training_spec
    shorter = open_project(train={"max_train_steps": 4}).training_spec
    assert kept_checkpoints(train, spec, paths) == {}
    trained = copy(paths.trained, spec, 6)
    two = copy(paths.checkpoints / "lora-step000002.safetensors", spec, 2)
    copy(paths.checkpoints / "best.safetensors", spec, 2)
    copy(paths.checkpoints / "lora-epoch0001.safetensors", spec, 2)
    four = copy(paths.checkpoints / "lora-epoch0002.safetensors", shorter, 4)
    copy(paths.checkpoints / "lora-step000003.safetensors", other, 3)
    copy(paths.checkpoints / "lora-step000004.ema.safetensors", spec, 4, **{"hv15.ema_decay": "0.9"})
    (paths.checkpoints / "lora-step000005.safetensors").write_bytes(b"torn")
    aside = copy(paths.results / "train-0123abcd/checkpoints/lora-step000001.safetensors", spec, 1)
    published = copy(paths.checkpoint_lora(5), checkpoint_spec(train, spec, 5), 5)
    copy(paths.checkpoint_lora(3), checkpoint_spec(train, other, 3), 3)
    found = kept_checkpoints(train, spec, paths)
    assert list(found.items()) == [(1, aside), (2, two), (4, four), (5, published), (6, trained)]


def test_of_a_training_with_an_average_both_files_are_needed(open_project: MakeProject) -> None:
    project = open_project(train={"max_train_steps": 6, "ema_decay": 0.9})
    train, spec, paths = project.settings.train, project.training_spec, project.paths
    file = copy(paths.checkpoints / "lora-step000002.safetensors", spec, 2)
    assert kept_checkpoints(train, spec, paths) == {}
    copy(paths.checkpoints / "lora-step000002.ema.safetensors", spec, 2, **{"hv15.ema_decay": "0.9"})
    assert kept_checkpoints(train, spec, paths) == {2: file}


def test_a_rounded_copy_does_not_count_for_float32(open_project: MakeProject) -> None:
    project = open_project(train={"max_train_steps": 6, "save_precision": "bfloat16"})
    file = copy(project.paths.checkpoints / "lora-step000002.safetensors", project.training_spec, 2)
    assert kept_checkpoints(project.settings.train, project.training_spec, project.paths) == {2: file}
    exact = open_project(train={"max_train_steps": 6})
    assert kept_checkpoints(exact.settings.train, exact.training_spec, exact.paths) == {}


def test_what_is_there_is_listed() -> None:
    error = not_kept(1500, [500, 1000], "train.publish_step")
    assert error.message == "train.publish_step: the LoRA after step 1,500 is not kept; there are 500, 1,000"
    assert "save_every_n_steps" in str(not_kept(1, []))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    run(folder, settings(max_train_steps=4, save_every_n_steps=2))
    return folder


def test_it_is_what_a_training_of_that_length_makes(trained: Path, tmp_path: Path) -> None:
    shorter = run(tmp_path / "shorter", settings(max_train_steps=2))
    config = settings(max_train_steps=4)
    source, out = trained / "train/checkpoints/lora-step000002.safetensors", tmp_path / "out/lora.safetensors"
    keep_checkpoint(source, out, checkpoint_spec(config.train, spec_of(config), 2), config.train)
    found, expected = load_file(out), load_file(shorter)
    assert found.keys() == expected.keys()
    assert all((found[name] == expected[name]).all() for name in expected)
    assert any((found[name] != last).any() for name, last in load_file(trained / "lora.safetensors").items())


def test_it_tells_the_step_and_the_config_that_publishes_it(trained: Path, tmp_path: Path) -> None:
    config = settings(max_train_steps=4)
    wanted = checkpoint_spec(config.train, spec_of(config), 2)
    source, out = trained / "train/checkpoints/lora-step000002.safetensors", tmp_path / "lora.safetensors"
    keep_checkpoint(source, out, wanted, config.train)
    told = read_metadata(out)
    assert (told[STEPS], told["ss_steps"], json.loads(told[MADE_FROM])) == ("2", "2", wanted)
    assert json.loads(told[CONFIG])["train"]["publish_step"] == 2
    best = tmp_path / "best.safetensors"
    save_lora(best, read_lora(source)[0], {**read_metadata(source), VALIDATION_LOSS: "0.5"})
    keep_checkpoint(best, tmp_path / "again.safetensors", wanted, config.train)
    assert (tmp_path / "again.safetensors").read_bytes() == out.read_bytes()
