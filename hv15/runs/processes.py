"""The processes of a run: found by the environment that they inherit, so that a reused pid causes no mistake."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterable, Sequence

import psutil

from hv15.environment import RUN_VARIABLE
from hv15.records.events import RunRecord

SAME_S = 2.0
"""Two readings of one process's start time differ by less."""
EXEC_S = 1.0
"""A process takes less time to become another program, even on a busy machine."""


def main_process(record: RunRecord) -> psutil.Process | None:
    """Return the run's Snakemake process if it is alive on this machine."""
    if record.host != socket.gethostname():
        return None
    try:
        process = psutil.Process(record.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        same = abs(process.create_time() - record.create_time) < SAME_S or _run_of(process) == record.id
        return process if same else None
    except psutil.Error:
        return None


def run_processes(record: RunRecord) -> list[psutil.Process]:
    """Return all living processes of a run on this machine, its Snakemake first; also those that outlived it."""
    if record.host != socket.gethostname():
        return []
    found: dict[int, psutil.Process] = {}
    main = main_process(record)
    if main is not None:
        found[main.pid] = main
        with contextlib.suppress(psutil.Error):
            found.update({child.pid: child for child in main.children(recursive=True)})
    found.update({each.pid: each for each in psutil.process_iter() if _run_of(each) == record.id})
    return [each for each in found.values() if each.pid != os.getpid() and _lives(each)]


def left_behind(records: Iterable[RunRecord]) -> list[psutil.Process]:
    """Return the living processes of any of these runs on this machine, in one pass over all processes."""
    ids = {record.id for record in records if record.host == socket.gethostname()}
    found = [each for each in psutil.process_iter() if _run_of(each) in ids] if ids else []
    return [each for each in found if each.pid != os.getpid() and _lives(each)]


def in_words(processes: Sequence[psutil.Process]) -> str:
    """Name processes of a run, those that do its work first: hv15 train (pid 17), bash (pid 16)."""
    names = sorted(
        ((_program(each), each.pid) for each in processes), key=lambda found: not found[0].startswith("hv15")
    )
    return ", ".join(f"{name} (pid {pid})" for name, pid in names)


def _program(process: psutil.Process) -> str:
    """The program that a process runs; for hv15, also its command."""
    try:
        words = process.cmdline()
        for place, word in enumerate(words[:4]):
            if os.path.basename(word) in ("hv15", "hv15.cli") and place + 1 < len(words):  # noqa: PTH119
                return f"hv15 {words[place + 1]}"
        return process.name()
    except psutil.Error:
        return "a process"


def catches(process: psutil.Process, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal, which would end it otherwise. False if that is unknown."""
    try:
        with open(f"/proc/{process.pid}/status", encoding="ascii", errors="replace") as file:  # noqa: PTH123
            masks = [int(line.split()[1], 16) for line in file if line.startswith("SigCgt:")]
    except (OSError, ValueError, IndexError):
        return False
    return bool(masks and masks[0] >> (number - 1) & 1)


def interrupt(record: RunRecord, processes: Sequence[psutil.Process]) -> None:
    """Do what Ctrl-C does: SIGINT to Snakemake and to its jobs alike. SIGTERM to Snakemake alone stops no job.

    Args:
        processes: those of the run that live. Its group is asked only if one of them is in it, because the number of a
            group that is gone may be another program's by now.
    """
    if record.leads_group and any(_group(each) == record.pid for each in processes):
        try:
            os.killpg(record.pid, signal.SIGINT)
            return
        except OSError:  # it has ended meanwhile
            pass
    send(processes, signal.SIGINT)


def kill(record: RunRecord) -> None:
    """SIGKILL to all processes of a run, until none is left."""
    for _ in range(5):
        processes = run_processes(record)
        if not processes:
            return
        send(processes, signal.SIGKILL)
        psutil.wait_procs(processes, timeout=1)


def send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to each process that is still there."""
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.Error:
            continue


def _group(process: psutil.Process) -> int | None:
    try:
        return os.getpgid(process.pid)
    except OSError:
        return None


def _run_of(process: psutil.Process) -> str | None:
    try:
        return _environment(process).get(RUN_VARIABLE)
    except (psutil.Error, OSError):
        return None


def _environment(process: psutil.Process) -> dict[str, str]:
    """The variables that a process was started with.

    While it becomes another program (exec), Linux shows neither variables nor arguments for a moment. Kernel threads
    never have any, but they have no program either.
    """
    found = process.environ()
    deadline = time.monotonic() + EXEC_S
    while not found:
        settled = bool(process.cmdline()) or not process.exe() or time.monotonic() > deadline
        found = process.environ()  # again: it may have settled since
        if settled:
            break
        time.sleep(0.001)
    return found


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
