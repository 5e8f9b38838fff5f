"""The shell functions of the workflow's jobs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hv15.runs.job_shell import SCRIPT

FAILS = ("bash", "-c", "echo was called; exit 3")


def taken(root: Path, *words: str) -> tuple[int, str]:
    """Call the function as a rule does; return its exit status and its log."""
    script = f'set -euo pipefail; source {SCRIPT}; job sample.log taken "$@"'
    done = subprocess.run(["bash", "-c", script, "bash", *words], cwd=root, capture_output=True, check=False)
    return done.returncode, (root / "sample.log").read_text()


def test_what_the_job_of_a_shard_has_made_is_taken(tmp_path: Path) -> None:
    (tmp_path / "made").write_text("a video")
    (tmp_path / "twin").write_text("another")
    assert taken(tmp_path, "made", "to", *FAILS, "--twin", "twin") == (0, "made by the job of its shard\n")
    assert (tmp_path / "to").read_text() == "a video"
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("is_folder", [False, True], ids=["file", "folder"])
def test_what_another_run_has_made_is_copied_without_a_program(tmp_path: Path, is_folder: bool) -> None:
    twin, left, to = (tmp_path / name for name in ("a twin", "to.part", "to"))
    if is_folder:
        twin.mkdir()
        left.mkdir()
        (left / "old").write_text("of a copy that was killed")
    else:
        left.write_text("of a copy that was killed")
    (twin / "0.png" if is_folder else twin).write_text("a frame")
    words = ("made", "to", *FAILS, "--spec", "s", "--twin", "a twin", "--out", "to")
    assert taken(tmp_path, *words) == (0, "copied from a twin, which is the same\n")
    assert [path.name for path in to.iterdir()] == ["0.png"] if is_folder else to.read_text() == "a frame"
    assert twin.exists()
    assert not left.exists()


def test_a_twin_that_is_gone_fails_the_job(tmp_path: Path) -> None:
    status, said = taken(tmp_path, "made", "to", *FAILS, "--twin", "gone")
    assert status != 0
    assert "gone" in said
    assert not (tmp_path / "to").exists()


def test_anything_else_is_made_by_the_command(tmp_path: Path) -> None:
    assert taken(tmp_path, "made", "to", *FAILS, "--lora", "x") == (3, "was called\n")
