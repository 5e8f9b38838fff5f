"""One config.yaml that is being edited: its text, its problems, its form, and undo."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import yaml

from hv15.config import Settings, load_config
from hv15.config.config_text import read_config_text, write_config_text
from hv15.config.yaml_edit import add_entry, remove_value, set_value, values
from hv15.config.yaml_file import YamlFile
from hv15.config.yaml_places import children, compose, location_at
from hv15.config.yaml_text import parse
from hv15.errors import UserError
from hv15.records.json_values import Json
from hv15.records.problems import ConfigError, Location, Problem
from tui.data.config_diff import Change, DiffLine, setting_changes, text_diff
from tui.data.config_form import FormField, FormSection, form

UNDO = 300
TYPING_S = 1.0
"""Edits of the text that follow each other faster are undone together."""


class ConfigFile:
    """A config file and the edits that are not saved yet."""

    def __init__(self, path: Path, text: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self.text = self.saved_text = text
        self.version = 0
        """Counts the edits."""
        self.problems: tuple[Problem, ...] = ()
        self.settings: Settings | None = None
        self._monotonic = monotonic
        self._past: list[str] = []
        self._future: list[str] = []
        self._typed: float | None = None
        self._yaml: YamlFile | None = None
        """Of the text, or of the last one that was YAML, which is `_yaml_text`."""
        self._yaml_text = ""
        self._form: tuple[int, tuple[FormSection, ...]] | None = None
        self._check()

    @classmethod
    def open(cls, path: Path) -> ConfigFile:
        """Read a file, even if its content is wrong.

        Raises:
            UserError: it is missing, cannot be read, or is not UTF-8.
        """
        return cls(path, read_config_text(path))

    @property
    def dirty(self) -> bool:
        return self.text != self.saved_text

    # -- looking ----------------------------------------------------------------------------------------------------

    def form(self) -> tuple[FormSection, ...]:
        """Return all settings; while the text is not YAML, those of the last text that was, or () if none was."""
        if self._yaml is None:
            return ()
        if self._form is None or self._form[0] != self.version:
            found = {each.place.setting: each.message for each in self.problems if each.place.setting}
            self._form = (self.version, form(self._yaml.data, self._literals(), found))
        return self._form[1]

    def field(self, location: Location) -> FormField | None:
        return next((each for section in self.form() for each in section.fields if each.location == location), None)

    def position(self, location: Location) -> tuple[int, int]:
        """Return line and column (from 1) of a setting, or of the nearest heading above it."""
        return self._yaml.position(location) if self._yaml else (1, 1)

    def location_at(self, line: int) -> Location:
        """Return the setting that stands in a line (from 1)."""
        return location_at(self.text, line)

    def changed_on_disk(self) -> bool:
        """Whether the file is no longer what was read or saved here."""
        try:
            return read_config_text(self.path) != self.saved_text
        except UserError:
            return True

    def diff_disk(self) -> list[DiffLine]:
        """What saving would change in the file as it is now."""
        return self.diff_with(self.path)

    def diff_with(self, path: Path) -> list[DiffLine]:
        """What differs from another file, such as the copy that a run was started from."""
        return text_diff(_content(path), self.text)

    def changes_with(self, path: Path) -> list[Change]:
        """The settings whose values differ from those of another file."""
        return setting_changes(_content(path), self.text)

    # -- editing ----------------------------------------------------------------------------------------------------

    def set_text(self, location: Location, text: str) -> None:
        """Take what was typed into a field; nothing typed means its default.

        Raises:
            UserError: it must be YAML and is not, or it cannot be inserted without touching more than this setting.
        """
        known = self.field(location)
        kind, optional = (known.kind, known.optional) if known else ("text", True)
        words = text.strip()
        if not words and (kind not in ("text", "path") or optional or (known and known.default == "")):
            if known is None or known.in_file:
                self.remove(location)
        elif kind in ("text", "path"):
            self.set(location, text if kind == "text" else words)
        elif kind in ("list", "mapping"):
            bare = kind == "list" and "," in words and not words.startswith("[")
            self.set(location, parse(f"[{words}]" if bare else words))
        elif kind in ("int", "float"):
            self._set_number(location, words)
        else:
            value = _parsed(words)
            self.set(location, words if known and words in known.choices and isinstance(value, str) else value)

    def _set_number(self, location: Location, words: str) -> None:
        value = _parsed(words)
        if isinstance(value, int | float) and not isinstance(value, bool) and re.fullmatch(r"[-+.\w]+", words):
            self._edit(set_value(self.text, location, None, literal=words))
        else:
            self.set(location, value)

    def set(self, location: Location, value: Json) -> None:
        """Set one setting; no other byte of the text changes.

        Raises:
            UserError: the text is not YAML, or more than this setting would change.
        """
        self._edit(set_value(self.text, location, value))

    def remove(self, location: Location) -> None:
        """Take a setting out of the file: its default holds."""
        self._edit(remove_value(self.text, location))

    def add_entry(self, location: Location, values: dict[str, Json]) -> None:
        """Append a dataset, a prompt or a LoRA to its list."""
        self._edit(add_entry(self.text, location, values))

    def remove_entry(self, location: Location) -> None:
        """Take an entry out of its list."""
        self._edit(remove_value(self.text, location))

    def replace_text(self, text: str) -> None:
        """Take the whole text from an editor, whatever it is."""
        if text == self.text:  # an editor repeats what it was given: nobody typed
            return
        now = self._monotonic()
        typing = self._typed is not None and 0 <= now - self._typed < TYPING_S
        self._edit(text, one_more=not typing)
        self._typed = now

    def undo(self) -> bool:
        """Take back the last edit; False when there is none."""
        return self._step(self._past, self._future)

    def redo(self) -> bool:
        return self._step(self._future, self._past)

    def _step(self, source: list[str], target: list[str]) -> bool:
        if not source:
            return False
        target.append(self.text)
        self._show(source.pop())
        return True

    def _edit(self, text: str, *, one_more: bool = True) -> None:
        if text == self.text:
            return
        if one_more or not self._past:
            self._past = [*self._past, self.text][-UNDO:]
        self._future.clear()
        self._show(text)

    def _show(self, text: str) -> None:
        self.text, self._typed = text, None
        self.version += 1
        self._check()

    # -- disk -------------------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """Take over what is on the disk now; undo brings the edits back.

        Raises:
            UserError: it cannot be read.
        """
        text = read_config_text(self.path)
        self.saved_text = text
        self._edit(text)

    def save(self, force: bool = False) -> None:
        """Write the file atomically.

        Raises:
            UserError: somebody else changed it meanwhile (unless `force`), it is write-protected, or cannot be written.
        """
        if not force and self.path.exists() and self.changed_on_disk():
            raise UserError.at(
                self.path,
                "was changed by another program since it was read here",
                hint="look at the difference, then save over it or read it again",
            )
        write_config_text(self.path, self.text)
        self.saved_text = self.text

    # -- checking ---------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        try:
            self.settings, self.problems = load_config(self.path, text=self.text), ()
        except ConfigError as error:
            self.settings, self.problems = None, error.problems
        with suppress(ConfigError):  # which is among the problems
            self._yaml, self._yaml_text = values(self.text), self.text

    def _literals(self) -> dict[Location, str]:
        """How the numbers of the file are written."""
        found: dict[Location, str] = {}
        stack: list[tuple[Location, yaml.Node]] = []
        if self._yaml is not None:
            stack.append(((), compose(self._yaml_text)))
        while stack:
            at, node = stack.pop()
            for number, place in enumerate(children(self._yaml_text, node)):
                inner = (*at, number if place.key is None else str(place.key.value))
                if isinstance(place.node, yaml.ScalarNode) and not place.node.style and _is_number(place.node.value):
                    found[inner] = place.node.value
                elif isinstance(place.node, yaml.CollectionNode) and len(inner) < 8:
                    stack.append((inner, place.node))
        return found


def _content(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _parsed(words: str) -> Json:
    try:
        return parse(words)
    except UserError:
        return words
