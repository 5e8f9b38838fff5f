"""What would run again after an edit, and why: `hv15 why`, in a process of its own."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hv15.errors import UserError
from hv15.records.json_values import RecordError
from hv15.records.reasons import DueStage, DueStages
from tui.data.trial import Trial

__all__ = ["DryRun", "DueStage", "Rerun"]


@dataclass(frozen=True)
class Rerun:
    """What would run."""

    stages: tuple[DueStage, ...] = ()
    error: str = ""
    """Why that is not known."""
    seconds: float = 0.0
    cancelled: bool = False

    @property
    def summary(self) -> str:
        """In one line."""
        if self.cancelled:
            return "not looked at any more"
        if self.error:
            return self.error.splitlines()[0]
        if not self.stages:
            return "nothing would run: everything is up to date"
        counts = Counter(stage.rule for stage in self.stages).most_common()
        rules = ", ".join(f"{rule} {count}" if count > 1 else rule for rule, count in counts)
        return f"{len(self.stages)} job{'s' * (len(self.stages) > 1)}: {rules}"


class DryRun:
    """One question, for the config as it is on disk or for a text that is not saved yet."""

    def __init__(self, config: Path, text: str | None = None, targets: Sequence[str] = ()) -> None:
        self._trial = Trial(config, text)
        self._targets = list(targets)

    def run(self) -> Rerun:
        """Ask. Takes a second or more: for a thread of its own."""
        begun = time.monotonic()
        try:
            answer = self._ask()
        except UserError as refused:
            answer = Rerun(error=str(refused))
        return Rerun(answer.stages, answer.error, time.monotonic() - begun, answer.cancelled)

    def cancel(self) -> None:
        self._trial.cancel()

    def _ask(self) -> Rerun:
        content = self._trial.ask("why", *(word for target in self._targets for word in ("--target", target)))
        if content is None:
            return Rerun(cancelled=True)
        try:
            return Rerun(DueStages.from_json(content).stages)
        except RecordError as error:
            return Rerun(error=f"what `hv15 why` printed {error}")
