"""Why a job failed: written by its own process when it ends, read by the run and by all that watch it."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from dataclasses import replace
from pathlib import Path

import hv15
from hv15.atomic import write_json
from hv15.environment import FAILURE_VARIABLE, RULE_VARIABLE
from hv15.errors import UserError
from hv15.out_of_memory import OutOfMemory
from hv15.records.events import JobDetails
from hv15.records.failures import Failure, FailureKind, FailureRecord, read_failure
from hv15.records.fields import to_json
from hv15.records.json_values import RecordError, parse_object
from hv15.records.paths import ProjectPaths
from hv15.runs.followed_file import end_of
from hv15.runs.foreign_messages import (
    FAULT,
    LONGEST,
    PUT_RIGHT,
    STOPPED,
    failure_in_log,
    known_failure,
)
from hv15.train.signals import Stopped

RESTART = "start again: it resumes from there"
LOG_END = 64 << 10
"""Bytes at the end of a log in which a cause is looked for."""


def write_failure(error: BaseException) -> None:
    """Write why this process ends, if it is a job of the workflow. An error while writing is ignored.

    If several processes of a job fail, only the first one writes: the others fail because of it.
    """
    path, failure = os.environ.get(FAILURE_VARIABLE), failure_of(error)
    if path and failure is not None and not Path(path).exists():
        rule = os.environ.get(RULE_VARIABLE, "")
        record = FailureRecord(rule=rule, command=("hv15", *sys.argv[1:]), failure=failure)
        with contextlib.suppress(OSError, UserError):
            write_json(Path(path), to_json(record))


def has_failed(log: Path) -> bool:
    """Return whether the job with this log recorded that it failed; one that was asked to stop has not."""
    said = failure_beside(log)
    return said is not None and said.kind is not FailureKind.STOPPED


def failure_beside(log: Path) -> Failure | None:
    """Return what the job with this log recorded when it failed; None if it recorded nothing."""
    try:
        return read_failure(parse_object(ProjectPaths().failure(log).read_bytes())).failure
    except (OSError, RecordError):
        return None


def explain_job(root: Path, job: JobDetails, said: Failure | None) -> Failure:
    """Return why a job failed: what it recorded itself, else what the end of its log means.

    Args:
        said: the job's own record, as the run has kept it.
    """
    if said is not None:
        return said
    log = next((root / name for name in job.log if (root / name).exists()), None)
    data, _ = end_of(log, LOG_END) if log else (b"", True)
    return failure_in_log(data.decode("utf-8", "replace").splitlines())


def failure_of(error: BaseException) -> Failure | None:
    """Return an error as a person should see it; None if it needs no more words, as for wrong arguments."""
    if isinstance(error, Stopped):
        return Failure(
            f"it was asked to stop and saved its state after step {error.step}",
            RESTART,
            FailureKind.STOPPED,
            saved_step=error.step,
        )
    if isinstance(error, KeyboardInterrupt):
        return STOPPED
    if isinstance(error, UserError):
        kind = FailureKind.MEMORY if isinstance(error, OutOfMemory) else FailureKind.USER
        return Failure(error.message, error.hint or PUT_RIGHT, kind, error.place)
    if not isinstance(error, Exception):
        return None
    words = f"{type(error).__name__}: {' '.join(str(error).split())[:LONGEST] or 'without a message'}"
    known = known_failure([words]) or Failure(words, FAULT, FailureKind.BUG)
    return replace(known, place=_place(error))


def _place(error: BaseException) -> str:
    """The last line of our own code in an error's traceback, else its last line."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(Path(hv15.__file__).parent)]
    return next((f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(own or frames)), "")
