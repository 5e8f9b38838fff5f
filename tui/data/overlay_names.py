"""What trainings that are drawn over one another are called: by the settings that differ among them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hv15.comparison.settings import UNSEEN, names_by_settings, recorded_settings
from hv15.config.section import Affects
from hv15.records.json_values import JsonObject
from hv15.records.training import TrainingRecord
from hv15.runs.metrics import record_of

OF_NO_MATTER = UNSEEN | {Affects.SPEED, Affects.APART}
"""Marks of settings that change no LoRA."""


def overlay_names(trainings: Mapping[str, Path]) -> dict[str, str]:
    """Return what distinguishes each training from the others, by label; none for one whose settings are not known.

    Args:
        trainings: the metrics files.
    """
    records = {label: record_of(path) for label, path in trainings.items()}
    return names_by_settings({label: settings_of(each) for label, each in records.items() if each is not None})


def settings_of(record: TrainingRecord) -> JsonObject:
    """Return the settings that change the LoRA, by dotted name, and what stands for the content of its datasets."""
    return recorded_settings(record, OF_NO_MATTER)
