"""Locks, logs and records never lead out of the project."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hv15.errors import UserError
from hv15.records.paths import ProjectPaths
from hv15.runs import lock
from hv15.runs.followed_file import append_object
from hv15.runs.job_shell import SCRIPT
from hv15.runs.output import OutputCopy
from hv15.train.metrics import MetricsFile
from hv15.train.state import locked

CONTENT = "somebody's words\n"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file of somebody that is not to be touched."""
    file = tmp_path / "outside/notes.txt"
    file.parent.mkdir()
    file.write_text(CONTENT)
    return file


def take_lock(root: Path) -> None:
    descriptor = lock.take(root, "20260101-000000-abcd")
    if descriptor is not None:
        os.close(descriptor)


def write_metrics(root: Path) -> None:
    MetricsFile(root / "results/train/metrics.jsonl").__exit__(None, None, None)


def lock_training(root: Path) -> None:
    with locked(root / "results/train"):
        pass


def add_event(root: Path) -> None:
    append_object(root / "events.jsonl", {"a": 1})


def copy_output(root: Path) -> None:
    OutputCopy().begin(root / "output.log")


WRITERS: dict[str, Callable[[Path], None]] = {
    ".hv15/run.lock": take_lock,
    "results/train/metrics.jsonl": write_metrics,
    "results/train.lock": lock_training,
    "events.jsonl": add_event,
    "output.log": copy_output,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_link_is_not_followed(name: str, tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HV15_OUTPUT", raising=False)
    monkeypatch.setenv("HV15_OUTPUT", "")
    root = tmp_path / "project"
    (root / name).parent.mkdir(parents=True)
    (root / name).symlink_to(outside)
    with pytest.raises((UserError, OSError), match="it is a link, which is not followed"):
        WRITERS[name](root)
    assert outside.read_text() == CONTENT
    (root / name).unlink()
    (root / name).symlink_to(tmp_path / "outside/new.txt")
    with pytest.raises((UserError, OSError)):
        WRITERS[name](root)
    assert list((tmp_path / "outside").iterdir()) == [outside]
    (root / name).unlink()
    WRITERS[name](root)


def test_nor_by_who_looks_at_the_lock(tmp_path: Path, outside: Path) -> None:
    path = ProjectPaths(tmp_path).lock
    path.parent.mkdir()
    path.symlink_to(outside)
    assert lock.holder(tmp_path) is None
    path.unlink()
    os.mkfifo(path)
    assert lock.holder(tmp_path) is None, "a pipe is not waited for"


def test_nor_by_the_log_of_a_job(tmp_path: Path, outside: Path) -> None:
    """The link goes, and the log is a file."""
    (tmp_path / "train.log").symlink_to(outside)
    (tmp_path / "output.log").symlink_to(outside)
    script = f"set -euo pipefail; source {SCRIPT}; job train.log echo said"
    environment = {**os.environ, "HV15_OUTPUT": "output.log"}
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert outside.read_text() == CONTENT
    for name in ("train.log", "output.log"):
        assert not (tmp_path / name).is_symlink()
        assert (tmp_path / name).read_text() == "said\n"
