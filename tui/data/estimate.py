"""Memory and time of each stage before the start, as `hv15 plan --json` finds them in a process of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hv15.errors import UserError
from hv15.records.json_values import Json, JsonObject, text_of
from tui.data.trial import Trial


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
            content = self._trial.ask("plan")
        except UserError as error:
            return Estimate(error=str(error))
        return _estimate(content) if content is not None else Estimate(cancelled=True)

    def cancel(self) -> None:
        self._trial.cancel()


def _estimate(content: JsonObject) -> Estimate:
    advice = [text_of(each, "text") for each in _list(content, "advice") if isinstance(each, dict)]
    note = text_of(content, "note")
    fits = content.get("fits")
    return Estimate(
        tuple(_line(stage) for stage in _list(content, "stages") if isinstance(stage, dict)),
        (*advice, note) if note else tuple(advice),
        device=_device(content.get("device")),
        fits=fits if isinstance(fits, bool) else None,
    )


def _device(device: Json) -> str:
    if not isinstance(device, dict):
        return ""
    memory = _number(device.get("memory"))
    return text_of(device, "name") + (f", {memory / 2**30:.1f} GiB" if memory else "")


def _line(stage: JsonObject) -> EstimateLine:
    seconds = _number(stage.get("total_seconds"))
    return EstimateLine(text_of(stage, "name"), _whole(stage.get("needed")), seconds, _note(stage))


def _note(stage: JsonObject) -> str:
    """How often what is done, where the memory goes, and whether it is too much."""
    words = ["does not fit"] if stage.get("fits") is False else []
    if (count := _whole(stage.get("count"))) is not None:
        words.append(f"{count} x {text_of(stage, 'unit')}".strip())
    parts = stage.get("parts")
    sizes = [(name, _number(size) or 0.0) for name, size in parts.items()] if isinstance(parts, dict) else []
    words += [f"{name} {size / 2**30:.1f} GiB" for name, size in sizes if size >= 0.05 * 2**30]
    return ", ".join(words)


def _list(content: JsonObject, key: str) -> list[Json]:
    value = content.get(key)
    return value if isinstance(value, list) else []


def _number(value: Json) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: Json) -> int | None:
    number = _number(value)
    return None if number is None else int(number)
