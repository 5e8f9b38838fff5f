"""What happens to the jobs of a run, one JSON line each, written from inside Snakemake as it logs.

Snakemake's log records carry what they are about (`record.event` and fields), so nothing is parsed from text. Lines:

- plan: jobs = all that will run, each with id, rule, wildcards, reason, log, output; total
- start: ids; job: one job with its details, at the moment when it starts
- done: id; failed: id, log; error: text; progress: done, total
- end: done, total, failed (ids), error: the last line of a run that was not killed

Every line has `event` and `time` (seconds since 1970).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hv15.errors import UserError
from hv15.runs import lock
from hv15.runs.metrics import keep_last_metrics, keep_metrics
from hv15.runs.record import RUN_VARIABLE, RunFolder, append_json, new_run

EVENTS_VARIABLE = "HV15_EVENTS"
"""Names a file for the events of a dry run."""


def record_events(workflow: Any) -> None:
    """Record a run: the one that `hv15 run` has started, or one that was started by hand, which then gets a folder.

    Called when the Snakefile is read. Jobs that read it again, and dry runs that nobody watches, are not recorded.
    """
    if not workflow.is_main_process:
        return
    from snakemake.logging import logger

    if run := os.environ.get(RUN_VARIABLE):
        _listen_to_interrupts(RunFolder(Path.cwd(), run))
    logger.addHandler(Recorder(workflow, Path.cwd()))


def _listen_to_interrupts(run: RunFolder) -> None:
    """Let a stop reach a run whose starter ignored Ctrl-C, as whatever a script starts with & does."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        with contextlib.suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if run.stop.exists():  # the request came before anybody listened
        raise KeyboardInterrupt


class Recorder(logging.Handler):
    """Writes events; whatever goes wrong with it, the run goes on."""

    def __init__(self, workflow: Any, root: Path) -> None:
        super().__init__()
        self._workflow, self._root = workflow, root
        self._lock_descriptor: int | None = None
        self._planned = False
        self._done = self._total = 0
        self._failed: list[int] = []
        self._error = ""
        watched = os.environ.get(EVENTS_VARIABLE)
        run = os.environ.get(RUN_VARIABLE)
        self._path = Path(watched) if watched else RunFolder(root, run).events if run else None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            event = str(getattr(record, "event", "") or "")
            if event == "run_info" and not self._path:
                self._begin()
            if self._path and (line := self._line(event, record)):
                append_json(self._path, {**line, "time": round(record.created, 3)})
        except Exception:  # a full disk, a Snakemake that names things otherwise: the run matters more
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """Stay silent: a message about the messages would come once a job."""

    def close(self) -> None:
        if self._path:
            path, self._path = self._path, None
            try:
                error = self._error or _text(sys.exc_info()[1])
                append_json(
                    path,
                    {
                        "event": "end",
                        "done": self._done,
                        "total": self._total,
                        "failed": self._failed,
                        "error": error,
                        "time": round(time.time(), 3),
                    },
                )
            except OSError:
                pass
            if run := os.environ.get(RUN_VARIABLE):
                keep_metrics(RunFolder(self._root, run))
        super().close()

    def _begin(self) -> None:
        """Give a run that was started by hand its folder, unless it is a dry run or another run is going on."""
        if self._workflow.dryrun:
            return
        run = new_run(self._root)
        try:
            self._lock_descriptor = lock.take(self._root, run.id, attempts=5)
            if self._lock_descriptor is None:
                return
            keep_last_metrics(self._root)
            files = [Path(file) for file in self._workflow.overwrite_configfiles] or [self._root / "config.yaml"]
            run.create(files[0])
            run.write_record(os.getpid(), sys.argv, files[0], [])
        except UserError:
            return
        os.environ[RUN_VARIABLE] = run.id
        self._path = run.events

    def _line(self, event: str, record: logging.LogRecord) -> dict[str, Any] | None:
        """Return what to write about one log record, or None."""
        if event == "run_info":
            if self._planned:  # a dry run says it a second time at its end
                return None
            self._planned, jobs = True, _planned(self._workflow)
            stats = getattr(record, "stats", None) or {}
            self._total = len(jobs) or int(stats.get("total", 0))
            return {"event": "plan", "jobs": jobs, "total": self._total, "rules": dict(stats)}
        if event == "job_started":
            return {"event": "start", "ids": list(record.jobs)}  # type: ignore[attr-defined]
        if event == "job_info":
            return {"event": "job", **_details(vars(record))}
        if event == "job_finished":
            return {"event": "done", "id": record.job_id}  # type: ignore[attr-defined]
        if event == "job_error":
            details = _details(vars(record))
            if details["id"] not in self._failed:
                self._failed.append(details["id"])
            return {"event": "failed", **details}
        if event == "progress":
            self._done, self._total = record.done, record.total  # type: ignore[attr-defined]
            return {"event": "progress", "done": self._done, "total": self._total}
        if event == "error":
            self._error = record.getMessage()
            return {"event": "error", "text": self._error}
        return None


def _details(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a job's record that a person may want to see."""
    return {
        "id": fields["jobid"],
        "rule": fields["rule_name"],
        "wildcards": dict(fields.get("wildcards") or {}),
        "reason": fields.get("reason") or "",
        "message": fields.get("rule_msg") or "",
        "log": list(fields.get("log") or ()),
        "output": [str(file).removesuffix(" (update)") for file in fields.get("output") or ()],
    }


def _planned(workflow: Any) -> list[dict[str, Any]]:
    """All jobs that will run, each behind what it waits for; nothing from a Snakemake whose plan looks otherwise.

    Then jobs show as they start.
    """
    try:
        dag = workflow.dag
        needed = set(dag.needrun_jobs())
        levels = [sorted(needed.intersection(level), key=_place) for level in dag.toposorted()]
        return [
            {
                "id": job.jobid,
                "rule": job.rule.name,
                "wildcards": dict(job.wildcards_dict),
                "reason": str(dag.reason(job)),
                "message": str(job.message or ""),
                "log": [str(file) for file in job.log],
                "output": [str(file) for file in job.output],
            }
            for level in levels
            for job in level
        ]
    except (AttributeError, TypeError):
        return []


def _place(job: Any) -> tuple[str, str]:
    return str(job.rule.name), str(sorted(job.wildcards_dict.items()))


def _text(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}" if error else ""
