"""What is in place and what is not, before a start: `hv15 check`, in a process of its own."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hv15.errors import UserError
from hv15.runs import control
from tui.data.system import SystemSample
from tui.data.trial import Trial

BUSY = 1 << 30
"""Bytes on a GPU below which nobody computes: screens and idle contexts take some hundred MiB."""


@dataclass(frozen=True)
class Check:
    """One line of the check."""

    state: Literal["ok", "note", "problem"]
    text: str


class Preflight:
    """One check, of the config as it is on disk or of a text that is not saved yet."""

    def __init__(self, config: Path, text: str | None = None) -> None:
        self._trial = Trial(config, text)

    def run(self) -> tuple[Check, ...]:
        """Ask `hv15 check`. Takes seconds: for a thread of its own."""
        try:
            with self._trial.file() as config:
                words = [sys.executable, "-m", "hv15.cli", "check", "--config", str(config)]
                done = self._trial.run(words, folder=self._trial.config.parent, environment=control.environment())
        except UserError as error:
            return (Check("problem", str(error)),)
        checks = read_checks(self._trial.named(done.output, config))
        if done.code and not any(check.state == "problem" for check in checks):
            words = [line for line in self._trial.named(done.errors, config).splitlines() if line.strip()]
            checks.append(Check("problem", "\n".join(words[-6:]).removeprefix("error: ") or "hv15 check failed"))
        return tuple(checks)


def read_checks(output: str) -> list[Check]:
    """Read the lines that `hv15 check` prints: `!` marks a problem, an indent continues the line above."""
    checks: list[Check] = []
    for line in output.splitlines():
        text = line[2:].rstrip()
        if line.startswith("  ") and checks and text.startswith(" "):
            checks[-1] = Check(checks[-1].state, f"{checks[-1].text}\n{text.strip()}")
        elif line.startswith("! "):
            checks.append(Check("problem", text.strip()))
        elif line.startswith("  ") and text:
            checks.append(Check("note" if text.startswith("note") else "ok", text.removeprefix("note").strip()))
    return checks


def machine_checks(sample: SystemSample) -> tuple[Check, ...]:
    """What the machine says against a start now: GPUs that others use, little memory."""
    found: list[Check] = []
    for gpu in sample.gpus:
        others = [process for process in gpu.processes if not process.ours]
        if others or gpu.used > BUSY:
            pids = f" by pid {', '.join(str(process.pid) for process in others[:5])}" if others else ""
            text = f"GPU{gpu.index} {gpu.name}: {gpu.used / 2**30:.1f} of {gpu.total / 2**30:.1f} GiB are in use{pids}"
            found.append(Check("note", text))
    if not sample.gpus:
        found.append(Check("note", sample.note))
    return tuple(found)
