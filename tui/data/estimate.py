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
    """What to change where it does not fit, and where the sizes come from."""
    error: str = ""
    device: str = ""
    """For which it was made, with its memory."""
    fits: bool | None = None
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
        advice = [str(each.get("text", "")) for each in _list(content, "advice") if isinstance(each, dict)]
        note = content.get("note") if isinstance(content, dict) else None
        notes = [*advice, note] if isinstance(note, str) and note else advice
        fits = content.get("fits") if isinstance(content, dict) else None
        return Estimate(
            tuple(_lines(content)),
            tuple(self._trial.named(each, config) for each in notes),
            device=_device(content),
            fits=fits if isinstance(fits, bool) else None,
        )


def _device(content: Any) -> str:
    device = content.get("device") if isinstance(content, dict) else None
    if not isinstance(device, dict):
        return ""
    memory = _number(device.get("memory"))
    return f"{device.get('name', '?')}" + (f", {memory / 2**30:.1f} GiB" if memory else "")


def _lines(content: Any) -> Iterator[EstimateLine]:
    for stage in _list(content, "stages"):
        if isinstance(stage, dict):
            yield EstimateLine(
                str(stage.get("name", "?")),
                _whole(stage.get("needed")),
                _number(stage.get("total_seconds")),
                _note(stage),
            )


def _note(stage: dict[str, Any]) -> str:
    """How often what is done, where the memory goes, and whether it is too much."""
    words = ["does not fit"] if stage.get("fits") is False else []
    if (count := _whole(stage.get("count"))) is not None:
        words.append(f"{count} x {stage.get('unit', '')}".strip())
    parts = stage.get("parts")
    sizes = [(name, _number(size) or 0.0) for name, size in parts.items()] if isinstance(parts, dict) else []
    words += [f"{name} {size / 2**30:.1f} GiB" for name, size in sizes if size >= 0.05 * 2**30]
    return ", ".join(words)


def _list(content: Any, key: str) -> list[Any]:
    found = content.get(key) if isinstance(content, dict) else None
    return found if isinstance(found, list) else []


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)
