"""The process that forks itself for the tests' programs leaves none of them behind."""

from __future__ import annotations

import subprocess
from pathlib import Path

import psutil

from tests.runs.project import wait_until
from tests.zygote import write_command, zygote

HANGS = """
import os, pathlib, time
pathlib.Path("pid").write_text(str(os.getpid()))
time.sleep(600)
"""


def test_a_program_that_hangs_ends_with_it(tmp_path: Path) -> None:
    program = tmp_path / "hangs.py"
    program.write_text(HANGS)
    pid = tmp_path / "pid"
    with zygote(tmp_path, imported=()) as folder:
        write_command(folder / "hangs", tmp_path / "socket", str(program))
        caller = subprocess.Popen([folder / "hangs"], cwd=tmp_path)
        wait_until(lambda: pid.exists() and bool(pid.read_text()))
        fork = psutil.Process(int(pid.read_text()))
    caller.wait(30)
    wait_until(lambda: not fork.is_running() or fork.status() == psutil.STATUS_ZOMBIE)
