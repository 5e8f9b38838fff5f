"""Names and lifetime of the copies on the way."""

from __future__ import annotations

from pathlib import Path

from hv15.config.train import TrainSettings
from hv15.train.checkpoints import CheckpointRule


def rule_of(**options: int) -> CheckpointRule:
    return CheckpointRule.from_settings(TrainSettings.model_validate(options))


def test_steps_and_epochs_are_due_when_they_end() -> None:
    rule = rule_of(save_every_n_epochs=2, save_every_n_steps=5)
    assert rule.due(4, 1, 1) == []
    assert rule.due(5, 1, 1) == ["lora-step000005.safetensors"]
    assert rule.due(6, 2, 1) == ["lora-epoch0002.safetensors"]
    assert rule.due(7, 2, 2) == []
    assert rule.due(10, 7, 3) == ["lora-step000010.safetensors", "lora-epoch0006.safetensors"]  # several in one step
    assert rule_of().due(100, 3, 2) == []


def test_the_published_step_is_made_once_and_stays(tmp_path: Path) -> None:
    rule = rule_of(save_every_n_steps=5, save_last_n_steps=1, publish_step=10)
    assert rule.due(10, 1, 1) == ["lora-step000010.safetensors"]
    assert rule_of(publish_step=7).due(7, 1, 1) == ["lora-step000007.safetensors"]
    for n in (5, 10, 15, 20):
        (tmp_path / f"lora-step{n:06d}.safetensors").touch()
    assert sorted(path.name for path in rule.expired(tmp_path)) == [
        "lora-step000005.safetensors",
        "lora-step000015.safetensors",
    ]


def test_only_the_last_of_each_kind_stay(tmp_path: Path) -> None:
    names = [f"lora-step{n:06d}.safetensors" for n in (5, 10, 15, 1000000)] + [
        f"lora-epoch{n:04d}.safetensors" for n in (1, 2, 3)
    ]
    for name in [*names, "lora-best.safetensors", "notes.txt"]:
        (tmp_path / name).touch()
    rule = rule_of(save_every_n_steps=5, save_last_n_steps=2, save_every_n_epochs=1, save_last_n_epochs=1)
    assert sorted(path.name for path in rule.expired(tmp_path)) == [
        "lora-epoch0001.safetensors",
        "lora-epoch0002.safetensors",
        "lora-step000005.safetensors",
        "lora-step000010.safetensors",
    ]
    assert rule_of(save_every_n_steps=5).expired(tmp_path) == []
    assert rule.expired(tmp_path / "absent") == []
