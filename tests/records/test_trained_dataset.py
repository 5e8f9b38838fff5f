"""The clips and captions of a training, by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hv15.records.json_values import RecordError
from hv15.records.trained_dataset import TrainedDataset, TrainedPair

DATASET = TrainedDataset(
    "d", [TrainedPair("clips/a.mp4", "m1", "c1", "s"), TrainedPair("caf\udce9.mp4", "m2", "c2", "s")]
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    DATASET.write(tmp_path / "train/dataset.json")
    assert TrainedDataset.load(tmp_path / "train/dataset.json") == DATASET


def test_it_is_small(tmp_path: Path) -> None:
    """A training may have 100,000 pairs."""
    TrainedDataset("d", [TrainedPair("clips/a.mp4", "m" * 64, "c" * 64, "s" * 16)] * 1000).write(tmp_path / "a.json")
    assert (tmp_path / "a.json").stat().st_size < 1000 * 190


@pytest.mark.parametrize(
    "change",
    [
        {"version": 0},
        {"pairs": 1},
        {"digest": None},
        {"pairs": [["clips/a.mp4", "m1", "c1"]]},
        {"pairs": [["clips/a.mp4", "m1", "c1", 1]]},
        {"pairs": ["abcd"]},
        None,
    ],
    ids=str,
)
def test_what_is_none(tmp_path: Path, change: dict[str, object] | None) -> None:
    path = tmp_path / "dataset.json"
    DATASET.write(path)
    content = json.loads(path.read_text())
    path.unlink() if change is None else path.write_text(json.dumps(content | change))
    with pytest.raises(RecordError):
        TrainedDataset.load(path)
