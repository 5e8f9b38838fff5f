"""Memory and time of each stage before the start, as `hv15 plan --json` finds them in a process of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hv15.errors import UserError
from hv15.runs import control
from tui.data.trial import Completed, Trial


@dataclass(frozen=True)
class EstimateLine:
    """One stage."""

    name: str
    memory: int | None
    """Bytes at the peak."""
    seconds: float | None
    note: str = ""


@dataclass(frozen=True)
class Estimate:
    """All stages; `error` when there is no estimate."""

    lines: tuple[EstimateLine, ...] = ()
    notes: tuple[str, ...] = ()
    error: str = ""
    cancelled: bool = False

    @property
    def peak(self) -> int | None:
        """The memory of the largest stage."""
        return max((line.memory for line in self.lines if line.memory is not None), default=None)


class Estimation:
    """One estimate, for the config as it is on disk or for a text that is not saved yet."""

    def __init__(self, config: Path, text: str | None = None) -> None:
        self._trial = Trial(config, text)

    def run(self) -> Estimate:
        """Ask `hv15 plan`. Takes seconds: for a thread of its own."""
        try:
            with self._trial.file() as config:
                words = [sys.executable, "-m", "hv15.cli", "plan", "--json", "--config", str(config)]
                folder = self._trial.config.parent
                done = self._trial.run(words, folder=folder, environment=control.environment())
                return self._read(done, config)
        except UserError as error:
            return Estimate(error=str(error))

    def cancel(self) -> None:
        self._trial.cancel()

    def _read(self, done: Completed, config: Path) -> Estimate:
        if done.cancelled:
            return Estimate(cancelled=True)
        if "invalid choice: 'plan'" in done.errors:
            return Estimate(error="this hv15 has no `hv15 plan`: there is no estimate")
        try:
            content = json.loads(done.output)
        except ValueError:
            words = [line for line in done.errors.splitlines() if line.strip()]
            return Estimate(error=self._trial.named("\n".join(words[-4:]) or "hv15 plan said nothing", config))
        notes = [str(note) for key in ("notes", "warnings") for note in _list(content, key)]
        return Estimate(tuple(_lines(content)), tuple(self._trial.named(note, config) for note in notes))


def _lines(content: Any) -> Iterator[EstimateLine]:
    for stage in _list(content, "stages"):
        if isinstance(stage, dict):
            notes = stage.get("note") or "; ".join(map(str, _list(stage, "notes")))
            yield EstimateLine(
                str(stage.get("name") or stage.get("stage") or "?"),
                _whole(stage.get("memory", stage.get("peak"))),
                _number(stage.get("seconds")),
                str(notes),
            )


def _list(content: Any, key: str) -> list[Any]:
    found = content.get(key) if isinstance(content, dict) else None
    return found if isinstance(found, list) else []


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)
