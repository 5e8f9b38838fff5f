"""What a training leaves in its folder for others to read: which training it is, and what its states are.

The trainer writes these, and the planner and the next training read them.

- run.json: `TrainingRecord`
- state/step-000123/state.json: `state_content`
- origin/: what it started from, if that is another training (`hv15.train.origin`)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hv15.atomic import write_json
from hv15.digest import digest
from hv15.records.json_values import JsonObject, RecordError, as_object, parse_object, read_record, text_of

VERSION = 1
RECORD = "run.json"
STATE = "state.json"
"""The file of a state with its position, and the digests of its other files."""
ITSELF = "digest"
"""The entry of it that stands for all its others."""
STATES_KEPT = 2
"""The last states stay, so many of them."""
_STEP = "step-"
"""What the name of a state's folder begins with."""


@dataclass(frozen=True)
class TrainingRecord:
    """The content of `results/train/run.json`."""

    past: JsonObject
    """The part of the spec on which the finished steps depend (`hv15.train.past`); its digest names the training."""
    config: JsonObject
    """The whole resolved config of the last call."""
    segments: tuple[JsonObject, ...] = ()
    """The trainings before this one (`hv15.train.segments`), if it started from another."""

    @property
    def digest(self) -> str:
        return digest(self.past)

    @property
    def continue_from(self) -> str:
        """The setting of that name; "" if it was not set."""
        train = self.config.get("train")
        return text_of(train, "continue_from") if isinstance(train, dict) else ""

    def write(self, folder: Path) -> None:
        """Write it into a training's folder, atomically.

        Raises:
            UserError: the disk is full, or the folder cannot be written.
        """
        content = {"version": VERSION, "past": self.past, "config": self.config, "segments": [*self.segments]}
        write_json(folder / RECORD, content)

    @classmethod
    def load(cls, folder: Path) -> TrainingRecord:
        """Read that of a folder.

        Raises:
            RecordError: it is missing, damaged, or of another version.
        """
        return cls.read(folder / RECORD)

    @classmethod
    def read(cls, path: Path) -> TrainingRecord:
        """Read a file.

        Raises:
            RecordError: it is missing, damaged, or of another version.
        """
        content = read_record(path, VERSION)
        segments, past = content.get("segments"), as_object(content.get("past"))
        _checked_digest(past)
        return cls(
            past,
            as_object(content.get("config")),
            tuple(as_object(each) for each in segments) if isinstance(segments, list) else (),
        )


def known_record(folder: Path) -> TrainingRecord | None:
    """Return the record of a folder; None if it has none that can be read."""
    try:
        return TrainingRecord.load(folder)
    except RecordError:
        return None


def set_aside(training: Path) -> list[Path]:
    """Return the folders of other trainings that were moved aside for the one in `results/train`, sorted."""
    return sorted(path for path in training.parent.glob(f"{training.name}-*") if path.is_dir())


def state_folders(folder: Path) -> list[Path]:
    """Return the complete states in a folder such as `results/train/state`, newest first."""
    found = [path for path in folder.glob(f"{_STEP}*") if re.fullmatch(rf"{_STEP}\d{{6,18}}", path.name)]
    return sorted(found, key=step_of, reverse=True)


def state_name(step: int) -> str:
    """Return the name of the folder of a state after so many finished steps."""
    return f"{_STEP}{step:06d}"


def step_of(state: Path) -> int:
    """Return the number of finished steps of a state's folder."""
    return int(state.name.removeprefix(_STEP))


def state_content(state: Path) -> JsonObject:
    """Return the content of a state's `STATE`, without its own digest, which is checked.

    Raises:
        RecordError: it is missing or damaged.
    """
    try:
        content = parse_object((state / STATE).read_bytes())
    except OSError as error:
        raise RecordError(f"{STATE} cannot be read: {error.strerror or error}") from error
    if content.pop(ITSELF, "") != _checked_digest(content):
        raise RecordError(f"{STATE} is damaged")
    return content


def _checked_digest(content: JsonObject) -> str:
    """Return the digest of what somebody's file holds, and raise RecordError if that has none."""
    try:
        return digest(content)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"not a record: {error}") from error
