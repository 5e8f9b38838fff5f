"""The clips and captions of a training, by name, from which later changes of the dataset can be explained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hv15.atomic import write_text
from hv15.records.json_values import RecordError, read_record

VERSION = 1


@dataclass(frozen=True, slots=True)
class TrainedPair:
    """One captioned medium."""

    name: str
    """Its file, relative to the project folder."""
    media: str
    """sha256 of the file's bytes."""
    caption: str
    """sha256 of the caption's text, or of the keys of all texts from which the training draws."""
    dataset: str
    """Identity of its dataset: the settings that determine its clips and their weight."""
    mask: str = ""
    """sha256 of the bytes of its mask; "" if it has none."""


@dataclass(frozen=True)
class TrainedDataset:
    """The content of `results/train/dataset.json`."""

    digest: str
    """The dataset's digest, as in the training's spec."""
    pairs: Sequence[TrainedPair]

    def write(self, path: Path) -> None:
        """Write it atomically.

        Raises:
            UserError: the disk is full, or the folder cannot be written.
        """
        rows = [
            [pair.name, pair.media, pair.caption, pair.dataset, *([pair.mask] if pair.mask else [])]
            for pair in self.pairs
        ]
        content = {"version": VERSION, "digest": self.digest, "pairs": rows}
        write_text(path, json.dumps(content, separators=(",", ":")) + "\n")

    @classmethod
    def load(cls, path: Path) -> TrainedDataset:
        """Read it.

        Raises:
            RecordError: it is missing, damaged, or of another version.
        """
        content = read_record(path, VERSION)
        rows, digest = content.get("pairs"), content.get("digest")
        if not isinstance(rows, list) or not isinstance(digest, str):
            raise RecordError("holds no pairs")
        return cls(digest, [_pair(row) for row in rows])


def _pair(row: object) -> TrainedPair:
    if not isinstance(row, list) or len(row) not in (4, 5) or not all(isinstance(part, str) for part in row):
        raise RecordError(f"not a pair: {row!r:.80}")
    return TrainedPair(*row)
