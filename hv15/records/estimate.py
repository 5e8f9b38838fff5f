"""The part of the output of `hv15 plan --json`, on memory and time, that the dashboard reads."""

from __future__ import annotations

from dataclasses import dataclass

from hv15.records.fields import check_version, from_json
from hv15.records.json_values import JsonObject

VERSION = 1
"""Increased when the meaning of a field changes."""


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
