"""What would run and why, as `hv15 why --json` writes it and the dashboard reads it."""

from __future__ import annotations

import json

import pytest

from hv15.records.json_values import RecordError, parse_object
from hv15.records.reasons import DueStage, DueStages

DUE = DueStages(
    (
        DueStage("train", "train the LoRA", ("train.seed 1 -> 2", "new clip a.mp4"), ("results/train.safetensors",)),
        DueStage("sample_video.a.base", "decode a.base", ()),
    )
)


def test_what_is_written_is_read() -> None:
    assert DueStages.from_json(parse_object(json.dumps(DUE.to_json()))) == DUE
    assert DueStages.from_json(DueStages().to_json()) == DueStages()


def test_the_rule_of_a_stage() -> None:
    assert [stage.rule for stage in DUE.stages] == ["train", "sample_video"]


def test_fields_of_a_later_hv15_are_passed_over() -> None:
    content = DUE.to_json() | {"later": 1}
    assert DueStages.from_json(content) == DUE


@pytest.mark.parametrize("change", [{"version": 2}, {"stages": {}}, {"stages": ["train"]}], ids=str)
def test_what_is_none(change: dict[str, object]) -> None:
    with pytest.raises(RecordError):
        DueStages.from_json({**DUE.to_json(), **change})  # type: ignore[dict-item]  # wrong on purpose
