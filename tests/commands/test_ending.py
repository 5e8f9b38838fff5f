"""What a signal that asks a command to end leaves behind: processes of their own, which end by that signal."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from hv15.commands.sample import Parts

PROGRAM = """
import os, signal, sys
from pathlib import Path
from hv15.atomic import atomic_path
from hv15.commands.ending import tidy_end

signals = [signal.Signals[name] for name in sys.argv[2:]]
with tidy_end(), atomic_path(Path(sys.argv[1])) as file:
    file.write_text("half")
    print(file.name, flush=True)
    try:
        os.kill(os.getpid(), signals[0])
    finally:
        for number in signals[1:]:
            os.kill(os.getpid(), number)
    print("went on", flush=True)
"""


def ended(target: Path, names: Sequence[str], prefix: Sequence[str] = ()) -> tuple[int, list[str]]:
    """The exit code of a program that gets signals while it writes a file, and its lines."""
    command = [*prefix, sys.executable, "-c", PROGRAM, target, *names]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize(
    ("names", "code", "left"),
    [
        (["SIGTERM"], -signal.SIGTERM, 0),
        (["SIGHUP"], -signal.SIGHUP, 0),
        (["SIGHUP", "SIGHUP"], -signal.SIGHUP, 0),  # the kernel's, and the shell's
        (["SIGTERM", "SIGTERM"], -signal.SIGTERM, 1),  # the second one is in earnest
    ],
)
def test_what_is_half_written_is_removed(tmp_path: Path, names: list[str], code: int, left: int) -> None:
    found, lines = ended(tmp_path / "a.mp4", names)
    assert found == code
    assert len(lines) == 1
    assert len(list(tmp_path.iterdir())) == left


def test_under_nohup_a_closed_terminal_ends_nothing(tmp_path: Path) -> None:
    code, lines = ended(tmp_path / "a.mp4", ["SIGHUP"], prefix=["nohup"])
    assert (code, lines[-1]) == (0, "went on")
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


def test_samples_have_no_folder_of_parts_before_there_are_any(tmp_path: Path) -> None:
    with Parts(tmp_path / "out").in_use() as is_alone:
        assert list(tmp_path.joinpath("out").iterdir()) == []
        assert is_alone()


def test_what_killed_samples_have_left_goes_with_the_next(tmp_path: Path) -> None:
    parts, result = Parts(tmp_path), tmp_path / "cat-seed1-00.mp4"
    parts.folder.mkdir()
    torn = [parts.folder / ".cat.latents.abcdefgh.tmp.safetensors", tmp_path / ".cat-seed1-00.abcdefgh.tmp.mp4"]
    others = [tmp_path / ".dog-seed1-00.abcdefgh.tmp.mp4", tmp_path / ".cat-seed1-00.more.abcdefgh.tmp.mp4", result]
    for file in (*torn, *others):
        file.touch()
    parts.remove_torn([result])
    assert sorted(tmp_path.iterdir()) == sorted(others)
