"""What a piece of work takes, and its extrapolation to more of the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hv15.plan.work import WorkByKind, extrapolate_work

if TYPE_CHECKING:
    from hv15.plan.meter import Meter


@dataclass(frozen=True)
class Cost:
    """What one step, batch or video takes."""

    parts: dict[str, int]
    """Part -> bytes at the peak."""
    work: WorkByKind
    """Kind of operator -> what the device does; for training, of one micro-batch."""
    host: int = 0
    """Bytes of the machine's memory that block swap and offload hold."""
    copied: int = 0
    """Bytes that both copy between the machine's memory and the device; for training, in one micro-batch."""
    validation: WorkByKind = field(default_factory=dict)
    """For training: what the device does to measure one clip."""

    @property
    def peak(self) -> int:
        return sum(self.parts.values())

    @property
    def flops(self) -> int:
        """Floating point operations; for training, those of one micro-batch."""
        return sum(each.flops for each in self.work.values())

    @classmethod
    def of(cls, meter: Meter) -> Cost:
        """The total that a meter has counted."""
        return cls(meter.parts, dict(meter.work))


def extrapolate(few: Cost, more: Cost, times: int) -> Cost:
    """Return `few` plus `times` the difference between `few` and `more`."""
    return Cost(extrapolate_parts(few.parts, more.parts, times), extrapolate_work(few.work, more.work, times))


def extrapolate_parts(few: dict[str, int], more: dict[str, int], times: int) -> dict[str, int]:
    """The same for the bytes of each part."""
    parts = {part: few.get(part, 0) + times * (more.get(part, 0) - few.get(part, 0)) for part in few | more}
    return {part: size for part, size in parts.items() if size}
