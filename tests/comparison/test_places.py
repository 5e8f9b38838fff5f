"""Which trainings a person means by some folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from hv15.comparison.places import named_trainings
from hv15.errors import UserError
from hv15.records.paths import ProjectPaths
from tests.comparison.made_up import make_training


def test_a_project_stands_for_its_training_and_its_experiments(tmp_path: Path) -> None:
    for run in ("", "fast", "slow"):
        make_training(tmp_path / "cats", run)
    make_training(tmp_path / "dogs", "fast")
    cats, dogs = tmp_path / "cats", tmp_path / "dogs"
    assert named_trainings([cats]) == {
        "cats": ProjectPaths(cats),
        "fast": ProjectPaths(cats, "fast"),
        "slow": ProjectPaths(cats, "slow"),
    }
    assert [*named_trainings([dogs, cats])] == ["dogs/fast", "cats", "cats/fast", "slow"]
    assert [*named_trainings([cats / "results"])] == ["cats", "fast", "slow"]
    assert named_trainings([cats / "results/slow", cats / "results/slow"]) == {"slow": ProjectPaths(cats, "slow")}


def test_equal_names_are_numbered(tmp_path: Path) -> None:
    for folder in ("a/same", "b/same"):
        make_training(tmp_path / folder)
    assert [*named_trainings([tmp_path / "a/same", tmp_path / "b/same"])] == ["same/same", "same/same (2)"]


def test_a_folder_in_which_nothing_was_trained_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "results/none", tmp_path / "missing"):
        with pytest.raises(UserError, match="nothing was trained here"):
            named_trainings([folder])
