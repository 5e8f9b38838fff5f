"""What is not trained on: chosen by content, encoded all the same, and part of the spec only as far as it matters."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from hv15.digest import digest
from hv15.project import Project
from hv15.project.validation import held_out
from hv15.records.problems import ConfigError
from hv15.train.past import past_of
from hv15.workflow.dataset_changes import dataset_changes
from tests.project.conftest import MakeProject, add_clip

FRACTION: dict[str, Any] = {"validation": {"fraction": 0.5}}


def keys(count: int) -> list[str]:
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(count)]


def spec_of(project: Project) -> str:
    return digest(project.training_spec)


def test_the_part_is_as_large_as_it_should_be() -> None:
    """Within five standard deviations of a binomial distribution."""
    count, fraction = 5000, 0.1
    found = held_out(keys(count), fraction)
    assert abs(len(found) - count * fraction) < 5 * (count * fraction * (1 - fraction)) ** 0.5
    assert held_out(reversed(keys(count)), fraction) == found
    assert held_out(keys(count), 0.2) > found


def test_files_stay_on_their_side_when_others_come() -> None:
    few, many = held_out(keys(200), 0.1), held_out(keys(400), 0.1)
    assert many & set(keys(200)) == few


def test_there_is_always_something_on_either_side() -> None:
    for count in range(2, 12):
        assert len(held_out(keys(count), 0.001)) == 1
        assert 1 <= len(held_out(keys(count), 0.999)) < count
    assert held_out(keys(1), 0.0) == frozenset()
    with pytest.raises(ConfigError, match=r"train\.validation\.fraction: needs at least two different files"):
        held_out(keys(1) * 3, 0.1)


def test_without_validation_the_spec_is_as_before(open_project: MakeProject) -> None:
    without = open_project()
    assert "validation" not in without.training_spec["train"]  # type: ignore[operator]
    assert without.validation_items() == []
    assert without.dataset.validation_pairs == []


def test_what_is_held_out_is_encoded_and_not_trained_on(open_project: MakeProject, root: Path) -> None:
    add_clip(root, "fox")
    project = open_project(train=FRACTION)
    trained, validated = (
        {pair.name for pair in pairs} for pairs in (project.dataset.pairs, project.dataset.validation_pairs)
    )
    assert trained | validated == {f"clips/{name}.mp4" for name in ("cat", "dog", "fox")}
    assert not trained & validated
    assert len(project.latents.needed) == 3
    assert {pair.name for pair in project.dataset.record().pairs} == trained
    assert project.training_spec["dataset"]["size"] == len(trained)  # type: ignore[index,call-overload]


def test_a_file_in_two_datasets_is_on_one_side(open_project: MakeProject) -> None:
    dataset = {"video_directory": "clips", "resolution": [64, 64]}
    project = open_project(
        train=FRACTION, datasets=[{**dataset, "target_frames": [9]}, {**dataset, "target_frames": [5]}]
    )
    trained, validated = (
        {pair.media for pair in pairs} for pairs in (project.dataset.pairs, project.dataset.validation_pairs)
    )
    assert not trained & validated
    assert len(project.dataset.validation_pairs) == 2


def test_only_what_is_trained_on_counts(open_project: MakeProject, root: Path) -> None:
    before = spec_of(open_project())
    held = open_project(train=FRACTION)
    assert spec_of(held) != before
    assert spec_of(open_project(train={"validation": {**FRACTION["validation"], "samples": 90, "at_first": True}})) == (
        spec_of(held)
    )
    own = {"validation": {"datasets": [{"video_directory": "others"}], "every_n_steps": 5, "keep_best": True}}
    add_clip(root, "owl", folder="others")
    assert spec_of(open_project(train=own)) == before
    add_clip(root, "pig", folder="others")
    project = open_project(train=own)
    assert spec_of(project) == before
    assert len(project.latents.needed) == 4
    assert {pair.name for pair in project.dataset.validation_pairs} == {"others/owl.mp4", "others/pig.mp4"}
    assert "a pig that runs" in project.texts.needed.values()


@pytest.mark.parametrize("change", [{"patience": 4}, {"every_n_steps": 7}, {"samples": 18}, {"at_first": True}])
def test_with_patience_what_is_measured_counts(change: dict[str, Any], open_project: MakeProject, root: Path) -> None:
    """And belongs to the past of the training: what ended it cannot be measured afterwards."""
    add_clip(root, "owl", folder="others")
    patient = {"datasets": [{"video_directory": "others"}], "every_n_steps": 5, "patience": 3}
    projects = [open_project(train={"validation": {**patient, **more}}) for more in ({}, change)]
    pasts = [past_of(project.settings.train, project.training_spec) for project in projects]
    assert digest(pasts[0]) != digest(pasts[1])
    assert spec_of(projects[0]) == spec_of(open_project(train={"validation": {**patient, "keep_best": True}}))
    add_clip(root, "pig", folder="others")
    assert spec_of(open_project(train={"validation": patient})) != spec_of(projects[0])


def test_a_file_that_is_trained_on_is_no_validation(open_project: MakeProject, root: Path) -> None:
    add_clip(root, "cat", folder="others")
    project = open_project(train={"validation": {"datasets": [{"video_directory": "others"}]}})
    with pytest.raises(
        ConfigError, match=r"others/cat\.mp4 is the same file as .*clips/cat\.mp4, which is trained on"
    ) as e:
        _ = project.training_spec
    (problem,) = e.value.problems
    assert problem.place.setting == ("train", "validation", "datasets", 0)


def test_a_folder_of_the_validation_that_is_not_there_is_named(open_project: MakeProject) -> None:
    project = open_project(train={"validation": {"datasets": [{"video_directory": "nowhere"}]}})
    with pytest.raises(ConfigError) as error:
        _ = project.dataset.sources
    assert error.value.problems[0].place.setting == ("train", "validation", "datasets", 0)


def test_what_is_held_out_now_is_not_called_removed(open_project: MakeProject) -> None:
    former = open_project().dataset.record()
    now = open_project(train=FRACTION)
    (held,) = {pair.name for pair in now.dataset.validation_pairs}
    assert list(dataset_changes(former, now.dataset.record(), {held})) == [f"clip {held} is for validation now"]
