"""What the watcher tells the screens. Each carries a value of tui.data; the screens react to these and to keys only."""

from __future__ import annotations

from dataclasses import dataclass

from textual.message import Message


@dataclass
class SourceFailed(Message):
    """A reader broke, which is a mistake of ours; the others go on."""

    source: str
    error: str
