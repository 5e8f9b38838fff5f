"""The report of `hv15 selftest`: what works on a machine, how fast, and whether the plan is true."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hv15.records.device_rates import DeviceRates
from hv15.records.estimate import Seconds
from hv15.records.fields import check_version, from_json
from hv15.records.json_values import JsonObject, RecordError, parse_object, report_content

VERSION = 1
"""Increased when the meaning of a field changes."""

SizesName = Literal["full", "tiny"]
Part = Literal["machine", "numbers", "full size", "loop"]
State = Literal["ok", "failed", "skipped", "left out"]
"""`skipped`: not possible here; `left out`: there was no time, or the device had failed. The message says why."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a check has measured. What does not apply is None."""

    seconds: float | None = None
    """Of one step."""
    rate: float | None = None
    """In `unit`."""
    unit: str = ""
    flops: float | None = None
    """Floating point operations of one step, counted, with those of recomputation."""
    share: float | None = None
    """Operations a second as a part of the device's peak (MFU)."""
    memory: int | None = None
    """Peak of the memory that tensors took on the device, in bytes, weights included."""
    planned_memory: int | None = None
    """The same as `hv15 plan` computes it."""
    planned_seconds: Seconds | None = None
    """Of one step, as `hv15 plan` assumes it without a measurement."""
    error: float | None = None
    """Difference from the reference, relative to its norm."""
    bound: float | None = None
    """The largest `error` that is right; 0 where bits must be equal."""
    times: dict[str, float] = field(default_factory=dict)
    """Where the time of one step goes -> seconds: attention, products, elementwise, copies, gaps."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One check of the report."""

    part: Part
    name: str
    state: State
    message: str = ""
    """Why it failed, was skipped or left out, in one line."""
    took: float = 0.0
    """Seconds that the check took in all."""
    measured: Measured = Measured()


@dataclass(frozen=True, kw_only=True)
class SelftestReport:
    """A run of the self-test. It is written after each check, so it may be of a run that was ended early."""

    version: int = VERSION
    hv15: str
    """The version that ran."""
    made_at: float
    """Seconds since 1970."""
    device: str
    """As its driver names it; `cpu` for the machine's processor."""
    facts: dict[str, str]
    """The machine in words: torch, Python, system, processor, CUDA, ..."""
    sizes: SizesName
    """Of the models in the part `full size`: the real ones, or small ones on a machine without a GPU."""
    rates: DeviceRates
    finished: bool = False
    rows: tuple[Row, ...] = ()

    def of(self, state: State) -> list[Row]:
        """The rows with this state."""
        return [row for row in self.rows if row.state == state]


def read_report(path: Path) -> SelftestReport:
    """Read a report.

    Raises:
        RecordError: it cannot be read, is not such a report, or is of a newer version.
    """
    try:
        content: JsonObject = parse_object(report_content(path, follow_link=True))
    except OSError as error:
        raise RecordError(f"cannot be read: {error.strerror or error}") from error
    check_version(content.get("version"), VERSION)
    return from_json(SelftestReport, content)
