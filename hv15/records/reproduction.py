"""reproduction.json: whether a LoRA that was made again from what it tells of itself is the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hv15.atomic import write_json
from hv15.records.fields import from_json, to_json
from hv15.records.json_values import read_record
from hv15.records.project_lock import Programs

VERSION = 1

Verdict = Literal["identical", "same weights", "different", "other inputs"]
"""Every byte is the same; all weights are, but not what the file tells beside them; weights differ; it was not trained
again, because its clips or models are not what they were."""


@dataclass(frozen=True)
class Reproduction:
    """The content of the file."""

    lora: str
    """The LoRA's file."""
    sha256: str
    verdict: Verdict
    trainings: int
    """The number of trainings that made it, one after the other."""
    steps: int
    """Of all of them."""
    made: str = ""
    """The file that was made again, relative to the project folder."""
    made_sha256: str = ""
    differences: tuple[str, ...] = ()
    """What is known to differ, in words, causes before effects: the first one is where it differs first."""
    programs: Programs | None = None
    """What it was made again with."""

    @property
    def is_same(self) -> bool:
        """Whether the weights are the same."""
        return self.verdict in ("identical", "same weights")

    def write(self, path: Path) -> None:
        """Write it atomically.

        Raises:
            UserError: the disk is full, or the folder cannot be written.
        """
        write_json(path, {"version": VERSION, **to_json(self)})

    @classmethod
    def load(cls, path: Path) -> Reproduction:
        """Read it.

        Raises:
            RecordError: it is missing, damaged, or of another version.
        """
        return from_json(cls, read_record(path, VERSION))
