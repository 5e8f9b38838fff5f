"""Memory and time of each stage before the start: `hv15 plan --json`, in a process of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hv15.errors import UserError
from hv15.records.estimate import Basis, StageEstimate, read_estimate
from hv15.records.json_values import JsonObject, RecordError
from hv15.units import GIB
from tui.data.trial import Trial
from tui.units import duration

SMALLEST_PART = 0.05 * GIB
"""A smaller part of a stage's memory is not named."""


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
    """The device for which it was made, with its memory."""
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
            content = self._trial.ask("plan", "--base")
        except UserError as error:
            return Estimate(error=str(error))
        return _estimate(content) if content is not None else Estimate(cancelled=True)

    def cancel(self) -> None:
        self._trial.cancel()


def _estimate(content: JsonObject) -> Estimate:
    try:
        found = read_estimate(content)
    except RecordError as error:
        return Estimate(error=f"what `hv15 plan` printed {error}")
    return Estimate(
        tuple(_line(stage) for stage in found.stages),
        (*(each.text for each in found.advice), *([found.note] if found.note else []), *_allowances(found.stages)),
        device=f"{found.device.name}, {found.device.memory / GIB:.1f} GiB",
        fits=found.fits,
    )


def _allowances(stages: tuple[StageEstimate, ...]) -> list[str]:
    """Where the part of the memory comes from that no tensor shows."""
    return [f"memory allowances: {Basis.joint(*(stage.memory_basis for stage in stages))}"] if stages else []


def _line(stage: StageEstimate) -> EstimateLine:
    """Whether the stage fits, how many units it has, the range of its time, and where its memory goes."""
    words = [*([] if stage.fits else ["does not fit"]), f"{stage.count} x {stage.unit}".strip()]
    if stage.total is not None:
        words.append(f"{duration(stage.total.least)} to {duration(stage.total.most)} ({stage.total.basis})")
    words += [f"{name} {size / GIB:.1f} GiB" for name, size in stage.parts.items() if size >= SMALLEST_PART]
    return EstimateLine(stage.name, stage.needed, stage.total_seconds, ", ".join(words))
