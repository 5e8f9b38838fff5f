"""A config that is being edited: every step runs in a thread, one after the other, and returns a view of the whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from hv15.records.problems import Location, Problem
from hv15.stamp import stamp
from tui.data.config_diff import Change, DiffLine
from tui.data.config_file import ConfigFile
from tui.data.config_form import FormSection


@dataclass(frozen=True)
class ConfigView:
    """The config as it is after a step."""

    version: int
    text: str
    dirty: bool
    """Whether saving would change what is on the disk."""
    problems: tuple[Problem, ...]
    sections: tuple[FormSection, ...]
    unsaved: tuple[DiffLine, ...]
    against_run: tuple[DiffLine, ...]
    """What differs from the config of the run in progress, or of the last one."""
    changes_against_run: tuple[Change, ...]
    positions: dict[Location, tuple[int, int]]
    """Where each given setting stands: line and column from 1."""
    changed_on_disk: bool = False
    """Whether somebody else changed the file, which is still there."""
    removed: bool = False

    def location_at(self, line: int) -> Location | None:
        """Return the setting that stands in a line (from 1), or the last one above it."""
        above = [(place, location) for location, place in self.positions.items() if place[0] <= line]
        return max(above)[1] if above else None


class ConfigSession:
    """The one ConfigFile of the screen. All methods block: call them in threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run_config: Path | None = None
        """The config of the run that it is compared with."""
        self._file: ConfigFile | None = None
        self._lock = Lock()
        self._seen: tuple[tuple[object, ...], ConfigView] | None = None

    def step(self, change: Callable[[ConfigFile], object] | None = None, *, text: str | None = None) -> ConfigView:
        """Change the file and return the view of the result.

        Args:
            change: what to do; None: nothing.
            text: the editor's text now, byte for byte, which is taken over first.

        Raises:
            UserError: the file cannot be read, or refuses the change.
        """
        with self._lock:
            if self._file is None:
                self._file = ConfigFile.open(self.path)
            file = self._file
            if text is not None and text != file.text:
                file.replace_text(text)
            if change is not None:
                change(file)
            return self._view(file)

    def _view(self, file: ConfigFile) -> ConfigView:
        """Return the view, made again only if something has changed since the last one."""
        run = self.run_config
        disk = (file.changed_on_disk(), file.path.exists())
        key = (file.version, file.text, file.saved_text, run, None if run is None else stamp(run), disk)
        if self._seen is None or self._seen[0] != key:
            self._seen = key, self._make_view(file)
        return self._seen[1]

    def _make_view(self, file: ConfigFile) -> ConfigView:
        sections = file.form()
        in_file = [field.location for section in sections for field in section.fields if field.in_file]
        run = self.run_config if self.run_config is not None and self.run_config.is_file() else None
        removed = not file.path.exists()
        dirty = file.dirty or removed
        return ConfigView(
            version=file.version,
            text=file.text,
            dirty=dirty,
            problems=file.problems,
            sections=sections,
            unsaved=tuple(file.diff_disk()) if dirty else (),
            against_run=tuple(file.diff_with(run)) if run is not None else (),
            changes_against_run=tuple(file.changes_with(run)) if run is not None else (),
            positions={location: file.position(location) for location in in_file},
            changed_on_disk=file.changed_on_disk() and not removed,
            removed=removed,
        )
