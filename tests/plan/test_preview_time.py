"""What samples between the steps of a training take, counted by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from hv15.config.presets import preset_text
from hv15.plan.devices import find_device
from hv15.plan.report import _time
from hv15.plan.stages import StagePlanner
from hv15.plan.workload import PreviewWork, Video, workload
from hv15.project import Project

PROMPTS: list[dict[str, Any]] = [
    {"name": "a", "prompt": "one", "video_size": [480, 832], "video_length": 25, "infer_steps": 20},
    {"name": "b", "prompt": "two", "video_size": [256, 256], "video_length": 9, "infer_steps": 10, "with_base": True},
]


def project(folder: Path, **train: Any) -> Project:
    """A preset with two prompts and without clips."""
    config = yaml.safe_load(preset_text("t2v-24gb"))
    config["train"] |= {"max_train_steps": 1600, **train}
    config["sample"]["prompts"] = PROMPTS
    (folder / "clips").mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return Project(folder / "config.yaml")


def previews(folder: Path, **train: Any) -> PreviewWork | None:
    return workload(project(folder, **train)).previews


def test_they_are_counted(tmp_path: Path) -> None:
    found = previews(tmp_path, preview_every_n_steps=500, preview_at_first=True)
    assert found is not None
    assert found.times == 4  # before the first step, and after 500, 1000 and 1500
    assert [(video.name, video.frames, video.steps) for video in found.videos] == [("a", 25, 20), ("b", 9, 10)]
    epochs = previews(tmp_path, preview_every_n_epochs=2, max_train_steps=None, max_train_epochs=7)
    assert epochs is not None
    assert epochs.times == 3
    assert previews(tmp_path) is None
    assert previews(tmp_path, preview_every_n_steps=2000) is None, "longer than the training"


def test_they_may_be_fewer_and_smaller(tmp_path: Path) -> None:
    small = {"infer_steps": 5, "video_length": 1, "video_size": [64, 96]}
    found = previews(tmp_path, preview_every_n_steps=800, previews=["b"], preview=small)
    guided = workload(project(tmp_path)).videos[1].guided
    assert found == PreviewWork((Video("b", 1, 64, 96, 5, guided),), 2)


@pytest.mark.slow
def test_their_time_is_that_of_the_samples_by_tokens(tmp_path: Path) -> None:
    def stages(**train: Any) -> StagePlanner:
        return StagePlanner(project(tmp_path, **train), find_device("a100-80gb"))

    planner = stages(preview_every_n_steps=800)
    step, decoding = planner.stage("denoise").each, planner.stage("decode").each
    train = planner.stage("train")
    assert step is not None
    assert decoding is not None
    assert train.previews is not None
    share = (3 * 16 * 16) / (7 * 30 * 52)
    for end in ("least", "most"):
        once = getattr(step, end) * (20 + 10 * share) + getattr(decoding, end) * (1 + share)
        assert getattr(train.previews, end) == pytest.approx(2 * once)
    assert "for previews" in _time(train)
    assert train.total is not None
    planner.work = replace(planner.work, previews=None)
    plain = planner.stage("train")
    assert plain.previews is None
    assert plain.total is not None
    assert train.total.most == pytest.approx(plain.total.most + train.previews.most)
