"""What messages of other programs mean: torch, the shell, Snakemake.

This is the only place where text is searched for a cause. What hv15 itself knows about a failure is a record.
"""

from __future__ import annotations

import logging
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hv15.records.failures import Failure, FailureKind
from hv15.records.paths import ProjectPaths

LONGEST = 300
"""Characters of a foreign message that are shown."""
FAULT = "this is a bug in the program: please report it with the log"
PUT_RIGHT = "correct what the message names, then start again"

_OWN_MEMORY = ("provenance/metadata so that", "triggered by provenance information")


def concerns_people(record: logging.LogRecord) -> bool:
    """Whether a message of Snakemake's is shown. Notes about its own records are not, as they decide nothing here."""
    message = record.getMessage()
    return not any(words in message for words in _OWN_MEMORY)


@dataclass(frozen=True)
class _Sign:
    """A pattern, and what a line that matches it means."""

    pattern: re.Pattern[str]
    kind: FailureKind
    cause: str
    """"" means the matching line itself."""
    cure: str


def _sign(pattern: str, kind: FailureKind, cause: str, cure: str) -> _Sign:
    return _Sign(re.compile(pattern, re.IGNORECASE), kind, cause, cure)


_KILLED = Failure(
    "it was killed from outside",
    "the machine may have run out of memory (see `dmesg`): close other programs, or see in `hv15 plan` what each stage "
    "needs (in encoding, lower cache.workers or use cache.fp8_vl: true); start again: what is finished is kept",
    FailureKind.KILLED,
)
_CRASHED = Failure(
    "it crashed in native code",
    "start again; if it crashes again, try train.attn_mode: sdpa and train.compile: false",
    FailureKind.BUG,
)
STOPPED = Failure("it was asked to stop", "start again: what is finished is kept", FailureKind.STOPPED)
_BY_SIGNAL = {
    **dict.fromkeys((signal.SIGINT, signal.SIGHUP, signal.SIGTERM), STOPPED),
    **dict.fromkeys((signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE), _CRASHED),
    signal.SIGKILL: _KILLED,
}
_SIGNS = (
    _sign(
        r"CUDA out of memory|OutOfMemoryError",
        FailureKind.MEMORY,
        "the GPU ran out of memory",
        "`hv15 plan` says what each stage needs and which setting helps; System shows who else uses the GPU",
    ),
    _sign(
        r"can't allocate memory|Cannot allocate memory|std::bad_alloc|\bMemoryError\b",
        FailureKind.MEMORY,
        "the machine ran out of memory",
        "close other programs, lower cache.workers, or use cache.fp8_vl: true",
    ),
    _sign(
        r"No space left on device|Disk quota exceeded",
        FailureKind.USER,
        "the disk is full",
        "free some disk space (`hv15 gc` lists what can go), then start again: finished work is kept",
    ),
    _sign(
        r"no kernel image is available|CUDA driver version is insufficient"
        r"|CUDA error|CUDA_ERROR|cuDNN error|NCCL error",
        FailureKind.UNKNOWN,
        "",
        "see whether `nvidia-smi` works, and whether torch was built for this driver; after a CUDA error start again",
    ),
    _sign(
        r"Connection(Reset|Refused)?Error|Max retries exceeded|Name or service not known"
        r"|Temporary failure in name|HTTPError|GatedRepoError|RepositoryNotFoundError",
        FailureKind.USER,
        "the download failed",
        "check the network and HF_TOKEN, or fetch the files elsewhere and set models.source: files",
    ),
    _sign(r"\bKilled\b|SIGKILL", FailureKind.KILLED, _KILLED.cause, _KILLED.cure),
    _sign(
        r"Segmentation fault|SIGSEGV|Bus error|Aborted \(core dumped\)",
        FailureKind.BUG,
        _CRASHED.cause,
        _CRASHED.cure,
    ),
)
_EXIT = re.compile(r"exit status (?P<code>\d+)|died with <Signals\.(?P<name>\w+)")
_EXCEPTION = re.compile(r"^(?:[\w.]+\.)?(?P<kind>[A-Z]\w*(?:Error|Exception|Interrupt|Warning)): ?(?P<text>.*)$")
_PLACE = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+)')
_HEADING = re.compile(r"\w*(Error|Exception)\b.*:$")
_REFUSED_WORDS = re.compile(r"^(?:snakemake|__main__\.py): error: (?P<what>.+)$", re.MULTILINE)
_NO_RULE = re.compile(r"^No rule to produce (?P<what>.+?) \(if you use input functions", re.MULTILINE)
_WORKFLOW_ERROR = re.compile(r"(?:WorkflowError|MissingInputException)[^\n]*:\n(?P<what>(?:.+\n?)+)")


def known_failure(lines: Sequence[str]) -> Failure | None:
    """Return what the last line with a known pattern means; None when there is none."""
    for sign in _SIGNS:
        if line := next((line for line in reversed(lines) if sign.pattern.search(line)), None):
            return Failure(sign.cause or line.strip()[:LONGEST], sign.cure, sign.kind)
    return None


def failure_by_exit(error: str) -> Failure | None:
    """Return what the exit of a job's command means, in Snakemake's words; None unless a signal ended it."""
    match = _EXIT.search(error)
    if match is None:
        return None
    number = int(match["code"]) - 128 if match["code"] else getattr(signal, match["name"], 0)
    return next((failure for each, failure in _BY_SIGNAL.items() if each == number), None)


def failure_in_log(lines: Sequence[str]) -> Failure:
    """Return what the end of a log means, of a job that left no record of its failure."""
    found = known_failure(lines) or _exception(lines)
    if found is not None:
        return found
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    if not last:
        return Failure("its log says nothing about it", "look at the run's own output in Logs", FailureKind.UNKNOWN)
    return Failure(f"its last words: {last[:LONGEST]}", "look at its log", FailureKind.UNKNOWN)


def _exception(lines: Sequence[str]) -> Failure | None:
    """The last exception of a traceback."""
    for number in range(len(lines) - 1, -1, -1):
        if match := _EXCEPTION.match(lines[number]):
            places = [place for line in lines[:number] if (place := _PLACE.match(line))]
            where = f"{Path(places[-1]['file']).name}:{places[-1]['line']}" if places else ""
            cause = f"{match['kind']}: {match['text'] or 'without a message'}"[:LONGEST]
            return Failure(cause, FAULT, FailureKind.BUG, place=where)
    return None


def failure_of_run(output: Sequence[str], reason: str) -> Failure:
    """Return why Snakemake itself failed, by the end of what it printed.

    Args:
        reason: what to return when its output says nothing.
    """
    text = "\n".join(output)
    if "LockException" in text or "Directory cannot be locked" in text:
        cure = "start again with `hv15 run`: it removes the lock"
        return Failure("an earlier run left Snakemake's lock", cure, FailureKind.USER)
    if match := _REFUSED_WORDS.search(text):
        return Failure(f"snakemake: {match['what']}"[:LONGEST], PUT_RIGHT, FailureKind.USER)
    if match := _WORKFLOW_ERROR.search(text):
        return Failure("\n".join(facts(match["what"])[:5]), PUT_RIGHT, FailureKind.USER)
    found = failure_in_log(output)
    return found if found.kind is not FailureKind.UNKNOWN else Failure(reason, found.cure, FailureKind.UNKNOWN)


def unknown_target(error: str) -> Failure | None:
    """Return what an error of Snakemake's means that is about a target without a rule; None of any other."""
    match = _NO_RULE.search(error)
    if match is None:
        return None
    cause = f"{match['what']}: the config asks for nothing with that name"
    cure = f"name a file that it asks for, such as {ProjectPaths().lora}"
    return Failure(cause[:LONGEST], cure, FailureKind.USER)


def facts(error: str) -> list[str]:
    """Return the lines of an error of Snakemake's that say more than its kind and its place in the Snakefile."""
    lines = [line.strip() for line in error.splitlines() if line.strip() and not _PLACE.match(line)]
    while len(lines) > 1 and _HEADING.match(lines[0]):
        lines = lines[1:]
    return lines
