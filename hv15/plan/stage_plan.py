"""What is planned for one stage: its memory by part, and its time."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from hv15.out_of_memory import StageName
from hv15.records.estimate import Basis, Seconds
from hv15.records.json_values import JsonObject


@dataclass(frozen=True)
class StagePlan:
    """One stage as planned. All sizes in bytes."""

    name: StageName
    parts: dict[str, int]
    """At the peak."""
    peak: int
    """Storages of tensors, to the byte."""
    needed: int
    """With the allowances for the driver, the allocator and the kernels' workspaces."""
    fits: bool
    host: int
    """Of the machine's memory, beside the process itself and beside `needed`."""
    disk: int
    """Of the disk with the results, while a unit is made, beside the results."""
    flops: int
    """Of one unit."""
    unit: str
    count: int
    each: Seconds | None
    """Of one unit; an estimate."""
    loads: int
    """How often its models are loaded: each job is a process of its own."""
    loading: Seconds | None
    """Of one job's start, with the loading of its models; an estimate."""
    validation: Seconds | None
    """Of all validations of a training; an estimate."""
    previews: Seconds | None
    """Of all previews of a training; an estimate."""
    memory_basis: Basis
    """Where the allowances in `needed` come from."""
    settings: JsonObject
    """The settings that determine its memory; values have whatever type the setting has."""

    @property
    def gpus(self) -> int:
        """How many GPUs it uses, on each of which it takes what is planned."""
        counts = [self.settings.get(name, 1) for name in ("num_processes", "context_parallel")]
        return prod(count for count in counts if isinstance(count, int))

    @property
    def total(self) -> Seconds | None:
        """The time of the whole stage, with the loading of the models."""
        if self.each is None or self.loading is None:
            return None
        beside = [each for each in (self.validation, self.previews) if each is not None]
        least, most = (
            getattr(self.each, end) * self.count
            + getattr(self.loading, end) * self.loads
            + sum(getattr(each, end) for each in beside)
            for end in ("least", "most")
        )
        return Seconds(least, most, Basis.joint(self.each.basis, self.loading.basis))

    @property
    def seconds(self) -> float | None:
        """Of one unit, typically."""
        return None if self.each is None else self.each.typical

    @property
    def load_seconds(self) -> float | None:
        """Of one loading, typically."""
        return None if self.loading is None else self.loading.typical

    @property
    def total_seconds(self) -> float | None:
        """Of the whole stage, typically."""
        return None if self.total is None else self.total.typical
