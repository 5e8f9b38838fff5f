"""The facts of a training, from its metrics and its record as the trainer writes them; names by the settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from hv15.comparison.settings import CLIPS
from hv15.records.json_values import JsonObject
from hv15.records.metrics import PreviewRecord, ValidationRecord, WarningRecord
from hv15.records.training import TrainingRecord
from tests.records.steps import lines, start_record, step_record
from tui.data.metrics import MetricsReader
from tui.data.overlay_names import overlay_names, settings_of
from tui.data.training_facts import TrainingFacts, training_facts
from tui.dialogs.training import facts_text

BAD = WarningRecord(step=2, message="the loss is nan, so the step was skipped", clips=("a.mp4",), skipped=True)
VALIDATIONS = [
    ValidationRecord(
        step=step,
        loss=loss,
        trained_loss=0.25,
        loss_by_quantile=(loss,) * 9,
        trained_loss_by_quantile=(0.25,) * 9,
        loss_t2v=loss + 0.1 if loss else None,
        trained_loss_t2v=0.125,
        sigmas=(0.5,) * 9,
    )
    for step, loss in ((1, 0.75), (2, 0.5), (3, None), (4, 0.625))
]


def config(**train: object) -> JsonObject:
    return {"task": "t2v", "datasets": [{"video_directory": "clips"}], "train": train}  # type: ignore[dict-item]


def record(**train: object) -> TrainingRecord:
    return TrainingRecord({"dataset": {"digest": "0123456789", "size": 24}}, config(**train))


def facts(folder: Path, told: TrainingRecord | None, *previews: PreviewRecord) -> TrainingFacts:
    path = folder / "results/train/metrics.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    steps = [step_record(step, skipped_steps=int(step > 1)) for step in range(1, 5)]
    path.write_text(lines(start_record(9), *steps, BAD, *VALIDATIONS, *previews))
    reader = MetricsReader(path)
    while reader.refresh():
        pass
    return training_facts("train", path, reader.status(), reader.told(), told)


def test_validation_and_skipped_steps(tmp_path: Path) -> None:
    found = facts(tmp_path, None)
    assert found.best == VALIDATIONS[1]
    assert found.validations == tuple(VALIDATIONS)
    assert (found.status.skipped, found.warnings) == (1, (BAD,))
    shown = facts_text(found).plain
    assert "skipped steps     1: their loss or gradient was not a number" in shown
    assert "step 2: the loss is nan, so the step was skipped" in shown
    assert "lowest loss       0.5 after step 2" in shown
    rows = {line[:17].strip(): line[18:].split() for line in shown.splitlines()}
    assert rows["all"] == ["0.5", "0.25", "0.625", "0.25"]
    assert rows["text-to-video"] == ["0.6", "0.125", "0.725", "0.125"]
    assert "image-to-video" not in rows
    assert rows["0.9, sigma 0.50"] == ["0.5", "0.25", "0.625", "0.25"]


def test_a_record_that_was_written_again_counts_once(tmp_path: Path) -> None:
    again = [PreviewRecord(step=2, name=name, path="x") for name in ("red", "red", "blue")]
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines(*VALIDATIONS[:2], VALIDATIONS[1], BAD, BAD, *again))
    reader = MetricsReader(path)
    reader.refresh()
    assert reader.told() == [*VALIDATIONS[:2], BAD, again[1], again[2]]


@pytest.mark.parametrize("ahead", [True, False])
def test_the_moving_average(tmp_path: Path, ahead: bool) -> None:
    """What previews show is what the last ones say of themselves, or the setting before there are any."""
    assert facts(tmp_path, record(ema_decay=0.0)).average is None
    previews = [] if ahead else [PreviewRecord(step=1, name="red", path="red.mp4", ema_decay=0.99)]
    (tmp_path / "results/lora.ema.safetensors").touch()
    average = facts(tmp_path, record(ema_decay=0.99, preview_average=ahead), *previews).average
    assert average is not None
    assert (average.decay, average.is_there, average.in_previews) == (0.99, True, True)
    assert average.path == tmp_path / "results/lora.ema.safetensors"
    assert "lora.ema.safetensors" in facts_text(facts(tmp_path, record(ema_decay=0.99))).plain


def test_segments(tmp_path: Path) -> None:
    origin: JsonObject = {"state": "ab12cd34ef", "step": 2, "samples": 12, "reset_optimizer": False}
    first: JsonObject = {"from_step": 0, "to_step": 2, "config": config(learning_rate=1e-3), "made_from": {}}
    last = TrainingRecord({"train": {"continue_from": origin}}, config(learning_rate=1e-4), (first,))
    assert facts(tmp_path, last).segments == (
        "1. after step 0: new",
        "2. after step 2: from the state ab12cd34 after step 2; train.learning_rate 0.001 -> 0.0001",
    )
    assert facts(tmp_path, record()).segments == ()


def test_settings_that_change_no_lora_do_not_name(tmp_path: Path) -> None:
    found = settings_of(record(learning_rate=1e-4, preview_every_n_steps=5, validation={"fraction": 0.1}))
    assert {name: value for name, value in found.items() if value is not None} == {
        "task": "t2v",
        "train.learning_rate": 1e-4,
        CLIPS: "24 (012345)",
    }
    paths = {name: tmp_path / name / "metrics.jsonl" for name in ("slow", "fast", "unknown")}
    for name, rate in (("slow", 1e-5), ("fast", "\x1b[31m" + "x" * 50)):
        paths[name].parent.mkdir()
        record(learning_rate=rate).write(paths[name].parent)
    names = overlay_names(paths)
    assert names.keys() == {"slow", "fast"}
    assert names["slow"] == "learning_rate 1e-05"
    assert "\x1b" not in names["fast"]
    assert len(names["fast"]) < 50
