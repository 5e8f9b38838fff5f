"""What is in place and what is missing before a start: `hv15 check`, in a process of its own."""

from __future__ import annotations

from pathlib import Path

from hv15.errors import UserError
from hv15.records.checks import Check, read_checks
from hv15.records.json_values import RecordError
from tui.data.system import SystemSample
from tui.data.trial import Trial

BUSY = 1 << 30
"""Below this many bytes, a GPU counts as idle: screens and idle contexts take some hundred MiB."""


class Preflight:
    """One check of the config as it is on disk."""

    def __init__(self, config: Path) -> None:
        self._trial = Trial(config)

    def run(self) -> tuple[Check, ...]:
        """Ask `hv15 check`. Takes seconds: for a thread of its own."""
        try:
            content = self._trial.ask("check")
            return read_checks(content) if content is not None else ()
        except UserError as error:
            return (Check("problem", "check", error.message, error.hint),)
        except RecordError as error:
            return (Check("problem", "check", f"what `hv15 check` printed {error}"),)

    def cancel(self) -> None:
        """End it."""
        self._trial.cancel()


def machine_checks(sample: SystemSample) -> tuple[Check, ...]:
    """What on this machine speaks against a start now: GPUs in use, little memory."""
    found: list[Check] = []
    for gpu in sample.gpus:
        others = [process for process in gpu.processes if not process.of_this_run]
        if others or gpu.used > BUSY:
            pids = f" by pid {', '.join(str(process.pid) for process in others[:5])}" if others else ""
            used = f"{gpu.used / 2**30:.1f} of {gpu.total / 2**30:.1f} GiB are in use{pids}"
            found.append(Check("note", f"GPU{gpu.index} {gpu.name}", used))
    if not sample.gpus:
        found.append(Check("note", "GPU", sample.note))
    return tuple(found)
