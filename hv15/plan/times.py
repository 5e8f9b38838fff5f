"""How long counted work takes on a device, as a range between the best and the worst that is realistic.

A device multiplies, moves bytes through its memory, starts kernels and copies from the machine's memory, each at a rate
that a self-test has measured or that is assumed. At best, kernels start and copies run while others compute; at worst
each waits for the other, and everything runs at its worst rate.

least = max(arithmetic + traffic, launches, copies)      at the best rates
most  =     arithmetic + traffic + launches + copies     at the worst

Arithmetic is that of products, convolutions and attention. Traffic is that of all other operators and of products so
thin that they wait for memory, such as a LoRA's. docs/memory.md compares the result with public measurements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from hv15.plan.devices import Device
from hv15.plan.work import ATTENTION, CONVOLUTIONS, ELEMENTWISE, NONE, PRODUCTS, THIN, WorkByKind
from hv15.records.device_rates import DeviceRates
from hv15.records.estimate import Basis, Seconds


class Rate(NamedTuple):
    """How much of something a device does in a second: operations, bytes, kernels."""

    best: float
    worst: float
    measured: bool = False

    def part(self, parts: tuple[float, float]) -> Rate:
        """Return the rate of what reaches only parts of this one, at best and at worst."""
        return Rate(self.best * parts[0], self.worst * parts[1], self.measured)


PRODUCTS_OF_PEAK = (0.75, 0.4)
"""Assumed part of the maker's peak that large matrix products reach. Clocks fall under load."""
FLOAT32_OF_PEAK = 1 / 8
"""Products in float32 beside the peak in bfloat16: true of T4 and V100, which have no bfloat16."""
ATTENTION_OF_PRODUCTS = (0.8, 0.5)
CONVOLUTIONS_OF_PRODUCTS = (0.6, 0.3)
"""Assumed speed beside that of large products."""
BANDWIDTH_OF_PEAK = (0.9, 0.6)
"""Assumed part of the maker's memory bandwidth that elementwise operators reach."""
LAUNCHES = Rate(1 / 5e-6, 1 / 15e-6)
"""Assumed kernels a second that a Python program starts."""
BUS = Rate(25e9, 10e9)
"""Assumed bytes a second between the machine's memory and the GPU (PCIe 4.0 x16 to 3.0 x16, pinned)."""
DISK = Rate(2e9, 0.7e9)
"""Assumed bytes a second at which a model is read and brought into its number format (NVMe, or the page cache)."""
START = Rate(1 / 3, 1 / 12)
"""Assumed: a process starts in 3 to 12 seconds, with Python, torch, its libraries and the driver's context."""
MEASURED_PARTS = (1.0, 0.8)
"""A measured rate is that of an operation alone; at worst, a stage reaches this part of it."""
MEASURED_LAUNCHES = (1.0, 0.5)
"""It is measured from one small operation to the next; between those of a model are modules, hooks and autograd."""
MEASURED_STAGE = (1.15, 0.85)
"""A stage of another size reaches this part of the utilisation that was measured."""


@dataclass(frozen=True)
class Load:
    """What a stage asks of a device for one of its units."""

    work: WorkByKind
    copied: int = 0
    """Bytes over the bus."""
    sides: tuple[str, ...] = ("to_device",)
    """The directions of the copies, as `DeviceRates` calls their rates."""


def unit_seconds(load: Load, device: Device, stage: str, number_format: str) -> Seconds | None:
    """Return the time of a unit of work; None if nothing is known about the device's speed.

    Args:
        stage: its name, see `hv15.out_of_memory.StageName`.
        number_format: of the products: float32, bfloat16 or fp8; float16 is as fast as bfloat16.
    """
    products = product_rate(device, number_format)
    if products is None:
        return None
    rates = device.rates
    copies = bus_rate(rates, load.sides)
    if rates is not None and products.measured and (reached := rates.utilisation.get(stage)):
        flops = sum(each.flops for each in load.work.values())
        speed = rates.products[number_format] * reached
        spent = [flops / (speed * part) for part in MEASURED_STAGE]
        copying = [load.copied / each for each in copies[:2]]
        measured = (True, copies.measured) if load.copied else (True,)
        return Seconds(max(spent[0], copying[0]), spent[1] + copying[1], Basis.of(measured))
    bandwidth = bandwidth_rate(device)
    if bandwidth is None:
        return None
    launches = _measured(rates.launch and 1 / rates.launch, MEASURED_LAUNCHES) if rates else None
    launches = launches or LAUNCHES
    least, most = (_parts_of_time(load, products, bandwidth, launches, copies, worst) for worst in (0, 1))
    used = [products.measured, bandwidth.measured, launches.measured, *([copies.measured] if load.copied else [])]
    return Seconds(max(least[0] + least[1], *least[2:]), sum(most), Basis.of(used))


def _parts_of_time(
    load: Load, products: Rate, bandwidth: Rate, launches: Rate, copies: Rate, worst: int
) -> tuple[float, float, float, float]:
    """Seconds of arithmetic, traffic, launches and copies, at the best (0) or the worst (1) rates."""
    speeds = {
        PRODUCTS: products,
        CONVOLUTIONS: products.part(CONVOLUTIONS_OF_PRODUCTS),
        ATTENTION: products.part(ATTENTION_OF_PRODUCTS),
    }
    return (
        sum(load.work.get(kind, NONE).flops / rate[worst] for kind, rate in speeds.items()),
        sum(load.work.get(kind, NONE).moved for kind in (THIN, ELEMENTWISE)) / bandwidth[worst],
        sum(each.launches for each in load.work.values()) / launches[worst],
        load.copied / copies[worst],
    )


def load_seconds(size: int, rates: DeviceRates | None) -> Seconds:
    """Return the time in which a job starts and loads so many bytes of models."""
    reading = (_measured(rates.loading) if rates else None) or DISK
    start = (_measured(rates.start and 1 / rates.start) if rates else None) or START
    least, most = (size / reading[each] + 1 / start[each] for each in (0, 1))
    return Seconds(least, most, Basis.of((reading.measured, start.measured)))


def product_rate(device: Device, number_format: str) -> Rate | None:
    """Operations a second of large products; None if unknown."""
    if device.rates is not None:
        measured = _measured(device.rates.products.get(number_format))
        if measured is not None:
            return measured
    if device.tflops is None:
        return None
    peak = device.tflops * 1e12 * (FLOAT32_OF_PEAK if number_format == "float32" else 1)
    return Rate(peak, peak).part(PRODUCTS_OF_PEAK)


def bandwidth_rate(device: Device) -> Rate | None:
    """Bytes a second through the device's memory; None if unknown."""
    measured = _measured(device.rates.bandwidth) if device.rates else None
    if measured is not None or device.bandwidth is None:
        return measured
    return Rate(device.bandwidth, device.bandwidth).part(BANDWIDTH_OF_PEAK)


def bus_rate(rates: DeviceRates | None, sides: tuple[str, ...]) -> Rate:
    """Bytes a second between the machine's memory and the device, in the slower of the directions."""
    found: list[float | None] = [getattr(rates, side) for side in sides] if rates else []
    known = [each for each in found if each is not None]
    return _measured(min(known)) or BUS if found and len(known) == len(found) else BUS


def _measured(value: float | None, parts: tuple[float, float] = MEASURED_PARTS) -> Rate | None:
    return Rate(value, value, measured=True).part(parts) if value else None
