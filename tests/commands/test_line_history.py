"""The lines of earlier sessions of `hv15 sample -i`: one's own, the last ones, and nobody else's file."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from hv15.commands.line_history import KEPT, LineHistory, history_file


def test_the_history_is_in_the_state_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert history_file("x") == Path("/state/hv15/x")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/me")
    assert history_file("x") == Path("/home/me/.local/state/hv15/x")


@pytest.fixture
def typed() -> Any:
    readline = pytest.importorskip("readline")
    readline.clear_history()
    yield readline
    readline.clear_history()


def test_lines_are_kept_for_oneself_and_the_oldest_are_dropped(tmp_path: Path, typed: Any) -> None:
    path = tmp_path / "state" / "hv15" / "history"
    for number in range(KEPT + 5):
        typed.add_history(f"a cat of {number} öre")
    LineHistory(path).write()
    assert path.read_text().splitlines() == [f"a cat of {number} öre" for number in range(5, KEPT + 5)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]
    typed.clear_history()
    LineHistory(path).read()
    assert (typed.get_current_history_length(), typed.get_history_item(1)) == (KEPT, "a cat of 5 öre")


def test_links_and_pipes_are_left_alone(tmp_path: Path, typed: Any) -> None:
    other = tmp_path / "other"
    other.write_text("secret\n")
    link = tmp_path / "link"
    link.symlink_to(other)
    LineHistory(link).read()
    assert typed.get_current_history_length() == 0
    typed.add_history("a cat")
    LineHistory(link).write()
    assert other.read_text() == "secret\n"
    os.mkfifo(tmp_path / "pipe")
    LineHistory(tmp_path / "pipe").read()
    LineHistory(tmp_path / "no folder" / "x" / "y").read()
    LineHistory(None).write()
    blocked = other / "history"
    LineHistory(blocked).write()
