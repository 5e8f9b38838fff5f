"""Starts the worker of the queue, detached: it continues when this process and its terminal are gone."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil

from hv15.errors import UserError
from hv15.gpus import VISIBLE
from hv15.own_files import cure, text_if_locked
from hv15.queue.queue_file import QueueFile
from hv15.runs.control import environment

BEGIN_S = 20.0
"""How long a busy machine may take to start it."""
LARGEST_LOG = 2**20
"""Bytes of its log; of a larger one, nothing is kept."""


def worker_pid(file: QueueFile) -> int | None:
    """Return the process id of the worker that lives; None if there is none."""
    text = text_if_locked(file.worker_lock)
    return int(text) if text is not None and text.isdecimal() and psutil.pid_exists(int(text)) else None


def ensure_worker(file: QueueFile) -> int | None:
    """Start the worker if there is something to do and none lives; return its process id, None if there is none.

    Call it after each change of the queue.

    Raises:
        UserError: it cannot be started, or has ended at once.
    """
    if not file.read().has_work:
        return worker_pid(file)
    pid = worker_pid(file)
    return pid if pid is not None else _start(file)


def _start(file: QueueFile) -> int | None:
    try:
        size = file.worker_log.stat().st_size if file.worker_log.exists() else 0
        with file.worker_log.open("ab" if size < LARGEST_LOG else "wb") as output:
            variables = environment()
            variables.pop(VISIBLE, None)  # each project has those that it was added with
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "hv15.queue.worker", str(file.folder)],
                cwd=file.folder,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        hint = cure(error, "free some disk space, or end other programs")
        raise UserError.at(
            file.folder, f"the queue's worker cannot be started: {error.strerror or error}", hint=hint
        ) from error
    deadline = time.monotonic() + BEGIN_S
    while time.monotonic() < deadline:
        if (code := process.poll()) is not None:
            if code:
                raise UserError.at(
                    file.worker_log,
                    f"the queue's worker ended at once, with exit code {code}",
                    lines=_last_lines(file),
                    hint="put right what it says; `hv15 queue` starts it again",
                )
            return worker_pid(file)  # another one was quicker, or everything is done
        if worker_pid(file) == process.pid:
            return process.pid
        time.sleep(0.02)
    return None


def _last_lines(file: QueueFile) -> list[str]:
    try:
        return file.worker_log.read_text(encoding="utf-8", errors="replace").splitlines()[-3:]
    except OSError:
        return []
