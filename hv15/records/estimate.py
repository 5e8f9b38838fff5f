"""The part of the output of `hv15 plan --json`, on memory and time, that the dashboard reads."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from hv15.records.fields import check_version, from_json
from hv15.records.json_values import JsonObject

VERSION = 1
"""Increased when the meaning of a field changes."""


class Basis(StrEnum):
    """Where an estimate's rates come from."""

    ASSUMED = "assumed"
    PARTLY = "partly measured here"
    MEASURED = "measured here"

    @classmethod
    def of(cls, measured: Collection[bool]) -> Basis:
        """Return the basis of an estimate from whether each of its rates was measured."""
        if not any(measured):
            return cls.ASSUMED
        return cls.MEASURED if all(measured) else cls.PARTLY

    @classmethod
    def joint(cls, *bases: Basis) -> Basis:
        """Return the basis of something that is made of several estimates."""
        return bases[0] if len(set(bases)) == 1 else cls.PARTLY


@dataclass(frozen=True)
class Seconds:
    """A time, as a range."""

    least: float
    most: float
    basis: Basis = Basis.ASSUMED

    @property
    def typical(self) -> float:
        """The middle, for where one number is needed."""
        return (self.least + self.most) / 2


@dataclass(frozen=True)
class DeviceEstimate:
    """The device for which the estimate was made."""

    name: str
    memory: int
    """In bytes."""


@dataclass(frozen=True)
class StageEstimate:
    """The estimate of one stage."""

    name: str
    needed: int
    """Peak memory in bytes, including allowances."""
    fits: bool
    parts: dict[str, int]
    """Bytes of each part at the peak."""
    count: int
    unit: str
    """The stage does `count` units, such as steps."""
    total_seconds: float | None = None
    """The typical time."""
    total: Seconds | None = None
    """The same as a range."""
    memory_basis: Basis = Basis.ASSUMED
    """Where the allowances come from."""


@dataclass(frozen=True)
class Advice:
    """A change that makes a stage fit."""

    text: str


@dataclass(frozen=True)
class ProjectEstimate:
    """The estimates of all stages."""

    device: DeviceEstimate
    fits: bool
    stages: tuple[StageEstimate, ...]
    advice: tuple[Advice, ...]
    note: str
    """The source of sizes and numbers."""
    version: int = VERSION


def read_estimate(content: JsonObject) -> ProjectEstimate:
    """Read the output of `hv15 plan --json`.

    Raises:
        RecordError: it is not a plan, or is of a newer version.
    """
    check_version(content.get("version"), VERSION)
    return from_json(ProjectEstimate, content)
