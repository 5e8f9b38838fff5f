"""When each file of the recorded run appeared, and how it grew."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hv15.records.fields import from_json
from hv15.records.json_values import parse_object
from hv15.records.paths import ProjectPaths

RECORDING = Path(__file__).parent / "recording"
FILE = "timeline.json"


@dataclass(frozen=True)
class RecordedFile:
    """One file of the run. Times are seconds since the run started."""

    path: str
    """From the project folder."""
    begin: float
    """When the file appears."""
    end: float | None = None
    """When the file is complete, if it grows line by line; None if it appears as a whole."""
    line_times: tuple[float, ...] | None = None
    """When each line comes, where that is known."""
    tells_times: bool = False
    """Whether each line is a record with a time of its own."""


@dataclass(frozen=True)
class RunTimeline:
    """The whole run."""

    run: str
    """Its id."""
    start: float
    """Seconds since 1970."""
    seconds: float
    """How long it took."""
    files: tuple[RecordedFile, ...]


def read_timeline() -> RunTimeline:
    """Return the timeline of the recording."""
    return from_json(RunTimeline, parse_object((RECORDING / FILE).read_bytes()))


def recorded_name(path: str) -> str:
    """The path of a project's file in the recording, in which no name begins with a dot: it is part of a package."""
    return path.replace(f"{ProjectPaths().hidden}/", "runs-folder/", 1)
