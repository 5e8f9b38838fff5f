"""What validations take: counted by hand, and below a hundredth of the training where nothing says how often."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hv15.config.presets import preset_text
from hv15.plan.devices import find_device
from hv15.plan.report import _time
from hv15.plan.stage_plan import StagePlan
from hv15.plan.stages import StagePlanner
from hv15.plan.workload import workload
from hv15.project import Project


def project(folder: Path, preset: str, validation: dict[str, Any], **train: Any) -> Project:
    """A preset with validation, without samples and without clips."""
    config = yaml.safe_load(preset_text(preset))
    config["train"] |= {**train, "validation": validation}
    config["sample"]["prompts"] = []
    (folder / "clips").mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return Project(folder / "config.yaml")


def training(folder: Path, preset: str, validation: dict[str, Any], **train: Any) -> StagePlan:
    return StagePlanner(project(folder, preset, validation, **train), find_device("a100-80gb")).stage("train")


@pytest.mark.parametrize(
    ("preset", "share"),
    [
        ("t2v-24gb", 0.01),
        pytest.param("i2v-16gb", 0.01, marks=pytest.mark.slow),
        pytest.param("t2v-80gb", 0.01, marks=pytest.mark.slow),
    ],
)
def test_it_costs_less_than_a_hundredth_of_the_presets_trainings(preset: str, share: float, tmp_path: Path) -> None:
    stage = training(tmp_path, preset, {"fraction": 0.1})
    assert stage.each is not None
    assert stage.validation is not None
    for end in ("least", "most"):
        assert 0.002 < getattr(stage.validation, end) / (getattr(stage.each, end) * stage.count) < share
    assert "for validations" in _time(stage)
    assert stage.total is not None
    assert stage.total.most > stage.each.most * stage.count + stage.validation.most


def test_passes_are_counted(tmp_path: Path) -> None:
    """1600 steps of one clip: before the first, and after every 500; of two parts, each pair as both tasks."""
    asked = {"fraction": 0.2, "samples": 18, "every_n_steps": 500, "at_first": True}
    measured = workload(project(tmp_path, "i2v-16gb", asked, i2v_prob=0.3)).validation
    assert measured is not None
    assert measured.passes == 4 * 2 * 18 * 2
    one_task = workload(project(tmp_path, "i2v-16gb", asked)).validation
    assert one_task is not None
    assert one_task.passes == 4 * 2 * 18
    assert workload(project(tmp_path, "i2v-16gb", {})).validation is None


def test_epochs_are_counted(tmp_path: Path) -> None:
    asked = {"fraction": 0.2, "every_n_epochs": 2}
    epochs = {"max_train_steps": None, "max_train_epochs": 7}
    measured = workload(project(tmp_path, "t2v-24gb", asked, **epochs)).validation
    assert measured is not None
    assert measured.passes == 3 * 2 * 9


def test_the_largest_clip_of_either_part_is_planned_for(tmp_path: Path) -> None:
    own = {"video_directory": "clips", "resolution": [1280, 720], "target_frames": [13], "batch_size": 3}
    for resolution, size in (([1280, 720], (13, 720, 1280)), ([64, 64], (25, 480, 832))):
        asked = {"datasets": [{**own, "resolution": resolution}]}
        measured = workload(project(tmp_path, "t2v-24gb", asked)).validation
        assert measured is not None
        largest = measured.largest
        assert (largest.samples, largest.frames, largest.height, largest.width) == (1, *size)
