"""A project whose workflow is a few shell commands, run by the real Snakemake in seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

SNAKEFILE = """
from hv15.runs.events import record_events
from hv15.runs.job_shell import prefix
record_events(workflow)
shell.prefix(prefix())

rule all:
    input: "results/b.txt"

rule first:
    output: "results/{name}.txt"
    wildcard_constraints: name="a"
    log: "results/logs/first.{name}.log"
    message: "Making {wildcards.name}"
    shell: "FIRST"

rule second:
    input: "results/a.txt"
    output: "results/b.txt"
    log: "results/logs/second.log"
    shell: "SECOND"
"""
PROFILE = "max-jobs-per-timespan: 100/0s\n"
"""Without a limit of jobs in a second, Snakemake does not stay for a second after its last job."""
FINISHES = "echo made > {output}"
SAVES = "python -u work.py > {log} 2>&1"
"""Works until it is interrupted, then saves."""
WORK = """
import pathlib, time
try:
    pathlib.Path("at-work").touch()
    time.sleep(100)
except KeyboardInterrupt:
    print("saved")
    raise SystemExit(3)
"""
FAILS = "echo 'error: no such thing' > {log}; exit 2"


def make_project(root: Path, first: str = FINISHES, second: str = FINISHES) -> Path:
    """Write a project with two jobs, one after the other."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "Snakefile").write_text(SNAKEFILE.replace("FIRST", first).replace("SECOND", second))
    (root / "work.py").write_text(WORK)
    (root / "profiles/default").mkdir(parents=True, exist_ok=True)
    (root / "profiles/default/config.yaml").write_text(PROFILE)
    (root / "config.yaml").write_text("task: t2v # as it was\n")
    return root


def wait_until(condition: Callable[[], object], seconds: float = 300.0) -> None:
    """Wait for something that must come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.05)


def detached(*words: str, cwd: Path | None = None, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a process in a group of its own that Ctrl-C reaches, even if these tests were told to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            words,
            cwd=cwd,
            env=os.environ | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)


def by_hand(root: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start Snakemake as a person in a terminal does."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return detached(sys.executable, "-m", "snakemake", "--cores", "1", *words, cwd=root, environment={"PATH": path})
