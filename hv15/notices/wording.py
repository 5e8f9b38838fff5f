"""What is told of a run: numbers, kinds of jobs and the project's name, and the rest only if the config asks for it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable

from hv15.progress import clock
from hv15.records.events import JobDetails
from hv15.records.failures import FailureKind
from hv15.records.notices import (
    Notice,
    NoticeCounts,
    NoticeDetails,
    NoticeEvent,
    NoticeJob,
    NoticeTraining,
)
from hv15.records.rules import rule_words
from hv15.runs.failures import explain_job
from hv15.runs.metrics import TrainingProgress, trainings_since
from hv15.runs.state import FailedJob, RunState, RunStatus
from hv15.terminal_text import one_line

MOST_NAMED = 3
"""Kinds of jobs that a text names."""

_KINDS = {
    FailureKind.USER: "something has to be put right",
    FailureKind.MEMORY: "not enough memory",
    FailureKind.BUG: "a fault in hv15",
    FailureKind.STOPPED: "it was stopped",
    FailureKind.KILLED: "it was killed",
}


def notice_of_end(found: RunStatus, *, details: bool) -> Notice:
    """Return the notice of a run that has ended.

    Args:
        found: its status.
        details: whether names, causes, machine and folder are told.
    """
    event: NoticeEvent = "end" if found.state in (RunState.FINISHED, RunState.STOPPED) else "failure"
    seconds = _seconds(found)
    failed = tuple(_failed_job(found, each, details=details) for each in found.failed)
    training = _training(found)
    sentences = [_jobs_sentence(found, seconds), *_failure_sentences(found, details=details)]
    if found.state is RunState.DIED:
        sentences.append(f"{_capital(found.reason)}.")
    if found.saved_step is not None:
        sentences.append(f"The training saved its state after step {found.saved_step:,}.")
    elif training is not None:
        sentences.append(_training_sentence(training))
    if event == "failure":
        sentences.append("`hv15 status` says more.")
    return _notice(found, event, found.state.value, sentences, seconds, failed=failed, details=details)


def notice_of_stall(found: RunStatus, silent_s: float, running: Iterable[JobDetails], *, details: bool) -> Notice:
    """Return the notice of a run in which nothing goes on.

    Args:
        found: its status.
        silent_s: the seconds since anything did.
        running: the jobs at work.
        details: as `notice_of_end`.
    """
    jobs = tuple(NoticeJob(each.rule, job=_plain(each.name) if details else None) for each in running)
    names = dict.fromkeys(_plain(each.job or rule_words(each.rule)) for each in jobs)
    seconds = _seconds(found)
    sentences = [f"Nothing has gone on for {minutes(silent_s)}{f': {_listed(names)}' if names else ''}."]
    sentences.append(_jobs_sentence(found, seconds))
    if (training := _training(found)) is not None:
        sentences.append(_training_sentence(training))
    return _notice(
        found, "stall", "has stalled", sentences, seconds, running=jobs, silent_s=round(silent_s, 1), details=details
    )


def notice_of_test(project: str) -> Notice:
    """Return a notice that says that notices arrive."""
    name = _plain(project)
    text = "This is a test: notices of runs arrive here."
    return Notice(event="test", title=f"hv15: a test from {name}", text=text, project=name)


def minutes(seconds: float) -> str:
    """A time in words, as exact as a person wants it: 31 minutes, 40 seconds."""
    return _counted(round(seconds), "second") if seconds < 90 else _counted(round(seconds / 60), "minute")


def _notice(
    found: RunStatus,
    event: NoticeEvent,
    ending: str,
    sentences: Iterable[str],
    seconds: float | None,
    *,
    failed: tuple[NoticeJob, ...] = (),
    running: tuple[NoticeJob, ...] = (),
    silent_s: float | None = None,
    details: bool,
) -> Notice:
    root = found.run.root.absolute()
    project = _plain(root.name) or "/"
    training = _training(found)
    told = NoticeDetails(socket.gethostname(), _plain(str(root)), _plain(found.reason)) if details else None
    lines = [" ".join(filter(None, sentences))]
    if told is not None:
        lines.append(f"{told.host}: {told.folder}")
    return Notice(
        event=event,
        title=f"hv15: {project} {ending}",
        text="\n".join(lines),
        project=project,
        run=found.run.id,
        state=found.state.value,
        started=found.started,
        seconds=None if seconds is None else round(seconds, 1),
        jobs=NoticeCounts(found.done, found.total, len(failed)),
        training=None if training is None else NoticeTraining(training.step, training.total, training.loss),
        saved_step=found.saved_step,
        failed=failed,
        running=running,
        silent_s=silent_s,
        details=told,
    )


def _failed_job(found: RunStatus, failed: FailedJob, *, details: bool) -> NoticeJob:
    said = explain_job(found.run.root, failed.job, failed.failure)
    if not details:
        return NoticeJob(failed.job.rule, said.kind.value)
    log = failed.job.log[0] if failed.job.log else None
    return NoticeJob(failed.job.rule, said.kind.value, _plain(failed.job.name), str(said), said.cure, log)


def _failure_sentences(found: RunStatus, *, details: bool) -> list[str]:
    """Why the run has failed, each kind of job once."""
    if found.state is not RunState.FAILED:
        return []
    if found.failure is not None:
        cause = f": {_plain(str(found.failure))}" if details else ""
        return [f"It could not be planned{cause}."]
    said = dict[str, None]()
    for each in found.failed:
        failure = explain_job(found.run.root, each.job, each.failure)
        if details:
            said[f"{_plain(each.job.name)}: {_plain(str(failure))}"] = None
        else:
            kind = _KINDS.get(failure.kind)
            said[f"{rule_words(each.job.rule)}{f' ({kind})' if kind else ''}"] = None
    return [f"Failed: {_listed(said)}."] if said else []


def _jobs_sentence(found: RunStatus, seconds: float | None) -> str:
    took = f" after {clock(seconds)}" if seconds is not None else ""
    if found.failure is not None and not found.total:
        return ""  # which the next sentence says
    return f"{found.done} of {_counted(found.total, 'job')} done{took}." if found.total else f"No job was done{took}."


def _seconds(found: RunStatus) -> float | None:
    """How long a run has taken so far; None if that is not known. Its clock may have been put back meanwhile."""
    return max(0.0, (found.ended or time.time()) - found.started) if found.started else None


def _training(found: RunStatus) -> TrainingProgress | None:
    """The training of this run that took a step last."""
    return None if found.started is None else next(iter(trainings_since(found.run.root, found.started)), None)


def _training_sentence(training: TrainingProgress) -> str:
    of = f" of {training.total:,}" if training.total else ""
    loss = f", loss {training.loss:.4f}" if training.loss is not None else ""
    return f"Training: step {training.step:,}{of}{loss}."


def _listed(names: Iterable[str]) -> str:
    listed = [*names]
    more = f" and {len(listed) - MOST_NAMED} more" if len(listed) > MOST_NAMED else ""
    return "; ".join(listed[:MOST_NAMED]) + more


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _counted(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def _plain(text: str) -> str:
    """One line that every server can read, whatever a name consists of."""
    return one_line(text.encode("utf-8", "backslashreplace").decode())
