"""Messages from the watcher to the screens, each with a value of tui.data. Screens react only to these and to keys."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:
    from tui.data.experiments import ExperimentsView
    from tui.data.projects import ProjectsView
    from tui.data.samples import Sample
    from tui.data.system import SystemSample
    from tui.project_files import JobsView, MetricsView, RunView, TailView


@dataclass
class RunSeen(Message, bubble=False):
    """The run or its state changed, or an earlier run did."""

    view: RunView


@dataclass
class JobsSeen(Message, bubble=False):
    """A job was planned, began or ended."""

    view: JobsView


@dataclass
class MetricsSeen(Message, bubble=False):
    """The training wrote a step."""

    view: MetricsView


@dataclass
class MachineSeen(Message, bubble=False):
    """The machine was measured."""

    sample: SystemSample


@dataclass
class TailSeen(Message, bubble=False):
    """The log that is followed grew."""

    view: TailView


@dataclass
class ExperimentsSeen(Message, bubble=False):
    """An experiment went on, or the config has others."""

    view: ExperimentsView


@dataclass
class ProjectsSeen(Message, bubble=False):
    """The queue changed, or another project did."""

    view: ProjectsView


@dataclass
class SourceFailed(Message, bubble=False):
    """A reader raised an error, which is a bug; the others continue."""

    source: str
    error: str


@dataclass
class OpenLog(Message):
    """Show this log on the screen Logs."""

    path: Path


@dataclass
class SamplesSeen(Message):
    """A sample appeared, changed or was removed."""

    samples: tuple[Sample, ...]
    asked: dict[str, bool]
    """The samples that the config asks for -> whether also without the LoRA."""
    enlarged: frozenset[str] = frozenset()
    """Those that it also asks to be made larger."""
    trains: bool = True
    """Whether the project has a LoRA of its own."""


@dataclass
class SamplingSaid(Message):
    """The command that samples again has printed another line."""

    line: str


@dataclass
class ShardsSeen(Message):
    """Jobs that make several samples have come to others."""

    names: frozenset[str]
    """Of the samples that are being made."""
