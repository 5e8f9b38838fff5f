"""What `hv15 plan --json` says of memory and time, as far as another program reads it; it says more than that."""

from __future__ import annotations

from dataclasses import dataclass

from hv15.records.fields import check_version, from_json
from hv15.records.json_values import JsonObject

VERSION = 1
"""Raised when a field gets another meaning."""


@dataclass(frozen=True)
class DeviceEstimate:
    """For what it was made."""

    name: str
    memory: int
    """Bytes."""


@dataclass(frozen=True)
class StageEstimate:
    """One stage."""

    name: str
    needed: int
    """Bytes at the peak, with allowances."""
    fits: bool
    parts: dict[str, int]
    """Bytes of each part at the peak."""
    count: int
    unit: str
    """How often it does what."""
    total_seconds: float | None = None


@dataclass(frozen=True)
class Advice:
    """What makes a stage fit."""

    text: str


@dataclass(frozen=True)
class ProjectEstimate:
    """All stages."""

    device: DeviceEstimate
    fits: bool
    stages: tuple[StageEstimate, ...]
    advice: tuple[Advice, ...]
    note: str
    """Where sizes and numbers come from."""
    version: int = VERSION


def read_estimate(content: JsonObject) -> ProjectEstimate:
    """Return what a plan says.

    Raises:
        RecordError: it is not what a plan looks like, or of a version that is not understood.
    """
    check_version(content.get("version"), VERSION)
    return from_json(ProjectEstimate, content)
