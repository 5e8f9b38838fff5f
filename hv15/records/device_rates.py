"""How fast a device is, as measured on it: `hv15 selftest` writes it and `hv15 plan` reads it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields

from hv15.records.fields import check_version, from_json
from hv15.records.json_values import JsonObject, RecordError

VERSION = 1
"""Increased when the meaning of a field changes."""


@dataclass(frozen=True, kw_only=True)
class DeviceRates:
    """Rates of one device. What was not measured is missing or None."""

    version: int = VERSION
    device: str
    """As its driver names it, such as `NVIDIA H100 80GB HBM3`; `cpu` for the machine's processor."""
    memory: int
    """In bytes."""
    torch: str
    """The version of torch that measured it."""
    products: dict[str, float] = field(default_factory=dict)
    """Number format (float32, bfloat16, fp8) -> floating point operations a second in large matrix products."""
    bandwidth: float | None = None
    """Bytes a second that an elementwise operation reads and writes in the device's memory."""
    launch: float | None = None
    """Seconds from one small kernel to the next."""
    to_device: float | None = None
    """Bytes a second from pinned memory of the machine to the device."""
    to_host: float | None = None
    """Bytes a second from the device to pinned memory of the machine."""
    to_device_pageable: float | None = None
    """Bytes a second from memory that is not pinned."""
    loading: float | None = None
    """Bytes a second at which a model file is read from disk into the device."""
    start: float | None = None
    """Seconds from the start of a process until torch has the device."""
    context: int | None = None
    """Bytes that the driver, the libraries and other processes held on the device beside torch's allocator."""
    fragments: float | None = None
    """The part of the memory held by torch's allocator at a training step's peak that no tensor used."""
    utilisation: dict[str, float] = field(default_factory=dict)
    """Stage (see `hv15.out_of_memory.StageName`) -> the part of `products` that its full-size step reached."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing was measured."""
        return self == DeviceRates(device=self.device, memory=self.memory, torch=self.torch)


def read_device_rates(content: JsonObject) -> DeviceRates:
    """Read the rates of a device.

    Raises:
        RecordError: it is not such a record, holds an impossible number, or is of a newer version.
    """
    check_version(content.get("version"), VERSION)
    rates = from_json(DeviceRates, content)
    for name, value in _numbers(rates):
        if not 0 < value < math.inf:
            raise RecordError(f"{name}: expected a number above 0, found {value!r}")
    if rates.fragments is not None and not 0 <= rates.fragments < 1:
        raise RecordError(f"fragments: expected a part from 0 to below 1, found {rates.fragments!r}")
    return rates


def _numbers(rates: DeviceRates) -> Iterator[tuple[str, float]]:
    """Those with a name that must be above 0."""
    for each in fields(rates):
        value = getattr(rates, each.name)
        if isinstance(value, dict):
            yield from ((f"{each.name}.{name}", number) for name, number in value.items())
        elif isinstance(value, int | float) and each.name != "fragments":
            yield each.name, value
