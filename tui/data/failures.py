"""Why something failed, in one sentence, and what helps: read from the end of a job's log."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hv15.runs.state import RunStatus, State
from tui.data.jobs import Job, JobState
from tui.data.log_file import tail

Kind = Literal["memory", "diverged", "disk", "missing", "killed", "caption", "user", "bug", "stopped", "unknown"]

SHOWN = 20
"""Lines of a log on a card."""
LOOKED_AT = 400


@dataclass(frozen=True)
class Failure:
    """What went wrong and how to put it right."""

    cause: str
    cure: str
    kind: Kind


@dataclass(frozen=True)
class FailureCard:
    """A failed job, or a failed run."""

    title: str
    failure: Failure
    log: Path | None
    tail: tuple[str, ...]
    """The last lines of the log."""
    job: Job | None


@dataclass(frozen=True)
class _Sign:
    """Words in a log, and what they mean."""

    pattern: re.Pattern[str]
    kind: Kind
    cause: str
    """"" for the line that holds the words."""
    cure: str


def _sign(pattern: str, kind: Kind, cause: str, cure: str) -> _Sign:
    return _Sign(re.compile(pattern, re.IGNORECASE), kind, cause, cure)


_MEMORY = (
    "train.gradient_checkpointing: true, batch_size 1, fewer target_frames or a lower resolution, train.quantize: fp8, "
    "train.blocks_to_swap; System shows who else uses the GPU"
)
_DISK = "free some disk space (`hv15 gc` lists what can go), then start again: finished work is kept"
_NO_MEMORY = _sign(
    r"CUDA out of memory|OutOfMemoryError|out of memory in training",
    "memory",
    "the GPU's memory was not enough",
    _MEMORY,
)
_NO_RAM = _sign(
    r"can't allocate memory|Cannot allocate memory|std::bad_alloc|\bMemoryError\b",
    "memory",
    "the machine's memory was not enough",
    "close other programs, lower cache.workers, or use cache.fp8_vl: true",
)
_FULL = _sign(r"No space left on device|Disk quota exceeded|disk is full", "disk", "the disk is full", _DISK)
_DIVERGED = _sign(
    r"training has diverged|loss is (nan|-?inf)",
    "diverged",
    "the training diverged: its loss is no longer a number",
    "lower train.learning_rate or lengthen train.lr_warmup_steps, then start again: earlier states are kept",
)
_GPU = _sign(
    r"no kernel image is available|CUDA driver version is insufficient|CUDA error|CUDA_ERROR|cuDNN error|NCCL error",
    "unknown",
    "",
    "see whether `nvidia-smi` works, and whether torch was built for this driver; after a CUDA error start again",
)
_NETWORK = _sign(
    r"Connection(Reset|Refused)?Error|Max retries exceeded|Name or service not known|Temporary failure in name"
    r"|HTTPError|GatedRepoError|RepositoryNotFoundError",
    "missing",
    "the download did not succeed",
    "check the network and HF_TOKEN, or fetch the files elsewhere and set models.source: files",
)
_KILLED = _sign(
    r"\bKilled\b|SIGKILL|exit(ed with)? (code|status) 137",
    "killed",
    "it was killed from outside",
    "the machine may have run out of memory: see `dmesg`; start again, it goes on from the last saved state",
)
_CRASHED = _sign(
    r"Segmentation fault|SIGSEGV|Bus error|Aborted \(core dumped\)",
    "bug",
    "it crashed in native code",
    "start again; if it crashes again, try train.attn_mode: sdpa and train.compile: false",
)
_STOPPED = _sign(
    r"run the same command to go on|KeyboardInterrupt|saved at step \d+",
    "stopped",
    "it was stopped and saved its state",
    "start again: it goes on from there",
)
_SIGNS = (_NO_MEMORY, _NO_RAM, _FULL, _DIVERGED, _GPU, _NETWORK, _KILLED, _CRASHED, _STOPPED)
_USER_ERROR = re.compile(r"^error: (?P<message>.*)$")
_HINT = re.compile(r"^\s+hint: (?P<hint>.*)$")
_EXCEPTION = re.compile(r"^(?:[\w.]+\.)?(?P<kind>[A-Z]\w*(?:Error|Exception|Interrupt|Warning)): ?(?P<text>.*)$")
_PLACE = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+)')
_MISSING = re.compile(r"does not exist|no such file|not found|is missing", re.IGNORECASE)
_CAPTION = re.compile(r"caption|not UTF-8", re.IGNORECASE)


def explain(text: str) -> Failure:
    """Say what a log's end, given as cleaned lines, means."""
    lines = text.splitlines()
    found = _user_error(lines)
    if found is not None:
        return found
    for sign in _SIGNS:
        if match := next((line for line in reversed(lines) if sign.pattern.search(line)), None):
            return Failure(sign.cause or match.strip()[:300], sign.cure, sign.kind)
    if (error := _exception(lines)) is not None:
        return error
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    if not last:
        return Failure("it wrote nothing about it", "look at the run's own output in Logs", "unknown")
    return Failure(f"its last words: {last[:300]}", "look at its log", "unknown")


def _user_error(lines: list[str]) -> Failure | None:
    """The message that hv15 prints for what a user can put right, with its hint."""
    for number in range(len(lines) - 1, -1, -1):
        if match := _USER_ERROR.match(lines[number]):
            message, cure = [match["message"]], ""
            for line in lines[number + 1 : number + 14]:
                if hint := _HINT.match(line):
                    cure = hint["hint"]
                    break
                if not line.startswith(" "):
                    break
                message.append(line.strip())
            cause = "\n".join(each for each in message if each)
            return Failure(cause, cure or _known_cure(cause), _kind(cause))
    return None


def _kind(cause: str) -> Kind:
    for sign in (_NO_MEMORY, _NO_RAM, _FULL, _DIVERGED):
        if sign.pattern.search(cause):
            return sign.kind
    return "caption" if _CAPTION.search(cause) else "missing" if _MISSING.search(cause) else "user"


def _known_cure(cause: str) -> str:
    return next(
        (sign.cure for sign in _SIGNS if sign.pattern.search(cause)), "put right what it says, then start again"
    )


def _exception(lines: list[str]) -> Failure | None:
    """The last exception of a traceback: a fault of the program."""
    for number in range(len(lines) - 1, -1, -1):
        if match := _EXCEPTION.match(lines[number]):
            places = [place for line in lines[:number] if (place := _PLACE.match(line))]
            where = f" ({Path(places[-1]['file']).name}:{places[-1]['line']})" if places else ""
            return Failure(
                f"{match['kind']}: {match['text'] or 'no words'}"[:300] + where,
                "this is a fault of the program: please report it with the log",
                "bug",
            )
    return None


def failure_cards(root: Path, jobs: Iterable[Job], status: RunStatus | None) -> tuple[FailureCard, ...]:
    """Return a card for each job that failed, else one for a run that did.

    A job that was cut short by a requested stop is none.
    """
    stopped = status is not None and status.state in (State.STOPPED, State.STOPPING)
    cards = []
    for job in jobs:
        if job.state is JobState.FAILED or (job.state is JobState.CUT and not stopped):
            card = _job_card(root, job)
            if not (stopped and card.failure.kind in ("stopped", "unknown")):
                cards.append(card)
    if not cards and status is not None and status.state in (State.FAILED, State.DIED):
        lines = _without_noise(tail(status.run.output, LOOKED_AT))
        if status.state is State.DIED:
            failure = Failure(status.reason, "start again: what is finished is kept", "killed")
        else:
            failure = _run_failure(lines, status.reason)
        cards.append(FailureCard(f"run {status.run.id}", failure, status.run.output, tuple(lines[-SHOWN:]), None))
    return tuple(cards)


def _job_card(root: Path, job: Job) -> FailureCard:
    log = next((root / name for name in job.log if (root / name).exists()), None)
    lines = _without_noise(tail(log, LOOKED_AT)) if log else []
    failure = explain("\n".join(lines))
    if job.state is JobState.CUT and failure.kind in ("unknown", "bug"):
        failure = Failure("it was cut short when the run ended", "start again: it goes on from there", "killed")
    return FailureCard(job.name, failure, log, tuple(lines[-SHOWN:]), job)


def _run_failure(lines: list[str], reason: str) -> Failure:
    """Of Snakemake itself: a wrong config, a missing file."""
    text = "\n".join(lines)
    if "LockException" in text or "Directory cannot be locked" in text:
        return Failure("an earlier run left Snakemake's lock", "start again from here: it is removed", "user")
    if match := re.search(r"(?:WorkflowError|MissingInputException)[^\n]*:\n(?P<what>(?:.+\n?)+)", text):
        what = [line.strip() for line in match["what"].splitlines() if line.strip() and not _PLACE.match(line)]
        hint = next((line.removeprefix("hint: ") for line in what if line.startswith("hint: ")), "")
        cause = "\n".join(line for line in what[:5] if not line.startswith("hint: "))
        return Failure(cause, hint or _known_cure(cause), _kind(cause))
    found = explain(text)
    return found if found.kind != "unknown" else Failure(reason, found.cure, "unknown")


def _without_noise(lines: list[str]) -> list[str]:
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    return lines
