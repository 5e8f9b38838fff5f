"""Commands that hv15 prints can be pasted into a shell, whatever the folder is called."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from hv15.commands.options.runs import Run
from hv15.runs import control
from hv15.runs.record import RunFolder
from tests.commands.workbench import hv15

NAME = "it's my $HOME; rm -r *"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / NAME
    folder.mkdir()
    (folder / "config.yaml").write_text("task: t2v\n")
    return folder


def test_a_new_project(tmp_path: Path) -> None:
    said = hv15("new", tmp_path / NAME)
    commands = [shlex.split(line) for line in said.out.splitlines()[1:]]
    folder = str(tmp_path / NAME)
    assert commands == [["hv15", "check", folder], ["hv15", "plan", folder], ["hv15", "run", folder, "--follow"]]


def test_the_status_of_a_project_without_runs(project: Path) -> None:
    said = hv15("status", project)
    [command] = re.findall("`(.*)`", said.out)
    assert shlex.split(command) == ["hv15", "run", str(project)]


def test_a_run_that_was_started(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(control, "start", lambda *words: RunFolder(project, "one"))
    monkeypatch.setattr("hv15.commands.runs.refuse_broken", lambda options: None)
    assert Run(project=project).run() == 0
    commands = capsys.readouterr().out.splitlines()[1].split("    ")
    assert [shlex.split(each) for each in commands] == [
        ["hv15", word, str(project)] for word in ("status", "tui", "stop")
    ]
