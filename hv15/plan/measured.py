"""What a stretch of work was found to take, and its continuation to more of the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hv15.plan.meter import Meter


@dataclass(frozen=True)
class Measured:
    """What a step takes."""

    parts: dict[str, int]
    """Part -> bytes at the peak."""
    flops: int
    """Floating point operations; of training: of one micro-batch."""
    host: int = 0
    """Bytes of the machine's memory that block swap and offload hold."""
    copied: int = 0
    """Bytes that travel between the two in one direction of one pass."""

    @property
    def peak(self) -> int:
        return sum(self.parts.values())

    @classmethod
    def of(cls, meter: Meter) -> Measured:
        return cls(meter.parts, sum(meter.flops.values()))


def line(few: dict[str, int], more: dict[str, int], times: int) -> dict[str, int]:
    """Each part's bytes after `times` steps of the size of that from `few` to `more`."""
    parts = {part: few.get(part, 0) + times * (more.get(part, 0) - few.get(part, 0)) for part in few | more}
    return {part: size for part, size in parts.items() if size}


def continued(few: Measured, more: Measured, times: int) -> Measured:
    """The same for all of it."""
    return Measured(line(few.parts, more.parts, times), few.flops + times * (more.flops - few.flops))
