"""What a training leaves in its folder for others to read."""

from __future__ import annotations

from pathlib import Path

import pytest

from hv15.records.json_values import RecordError
from hv15.records.training import STATE, TrainingRecord, known_record, set_aside, state_content, state_folders


def test_a_record_comes_back(tmp_path: Path) -> None:
    record = TrainingRecord({"train": {"seed": 1}}, {"train": {"continue_from": "latest"}}, ({"from_step": 0},))
    record.write(tmp_path)
    assert TrainingRecord.load(tmp_path) == record
    assert record.continue_from == "latest"
    assert TrainingRecord({}, {}).continue_from == ""


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"version": 2, "past": {}, "config": {}}',
        '{"version": 1, "past": [], "config": {}}',
        '{"version": 1, "past": {}, "config": 5}',
        '{"version": 1, "past": {"train": {"seed": NaN}}, "config": {}}',
        '{"version": 1, "past": ' + '{"a": ' * 900 + "1" + "}" * 900 + ', "config": {}}',
    ],
    ids=lambda content: content[:40],
)
def test_a_damaged_record_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    record = known_record(tmp_path)
    assert record is None or record.digest


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"step": NaN, "digest": "x"}', '{"step": 5, "digest": "x"}'])
def test_a_damaged_state_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / STATE).write_text(content)
    with pytest.raises(RecordError):
        state_content(tmp_path)


def test_states_are_listed_newest_first(tmp_path: Path) -> None:
    for name in ("step-000009", "step-1000005", "step-000010", ".step-000011.tmp", "step-12", "other"):
        (tmp_path / name).mkdir()
    assert [path.name for path in state_folders(tmp_path)] == ["step-1000005", "step-000010", "step-000009"]


def test_trainings_that_were_set_aside(tmp_path: Path) -> None:
    for name in ("train", "train-b", "train-a-2", "trained"):
        (tmp_path / name).mkdir()
    (tmp_path / "train-file").touch()
    assert [path.name for path in set_aside(tmp_path / "train")] == ["train-a-2", "train-b"]
