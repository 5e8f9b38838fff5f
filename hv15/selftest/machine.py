"""The machine: products, memory, launches, copies, reading of files, a start, and what the driver says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from hv15.records.selftest import Measured
from hv15.selftest.checks import MachineCheck
from hv15.selftest.stand import Skipped, Stand
from hv15.units import GIB, KIB

MIB = KIB**2
GB, TERA = 1e9, 1e12
LAUNCHES = 500


def machine_checks(stand: Stand) -> list[MachineCheck]:
    """The checks of this part."""
    plain = [
        MachineCheck("machine", f"products in {name}", partial(products, stand, dtype), 3)
        for name, dtype in (("bfloat16", torch.bfloat16), ("float16", torch.float16), ("float32", torch.float32))
    ]
    return [
        *plain[:1],
        MachineCheck("machine", "products in fp8", partial(fp8_products, stand), 3),
        *plain[1:],
        MachineCheck("machine", "elementwise bandwidth", partial(bandwidth, stand), 2),
        MachineCheck("machine", "time between small kernels", partial(launches, stand), 1),
        MachineCheck("machine", "copy to the device, pinned", partial(copies, stand, "to_device", pinned=True), 2),
        MachineCheck("machine", "copy to the host, pinned", partial(copies, stand, "to_host", pinned=True), 2),
        MachineCheck(
            "machine", "copy to the device, not pinned", partial(copies, stand, "to_device_pageable", pinned=False), 2
        ),
        MachineCheck("machine", "reading of a safetensors file", partial(loading, stand), 4),
        MachineCheck("machine", "start of a process", partial(start, stand), 8),
        MachineCheck("machine", "NVML", partial(nvml, stand), 1, needs=("pynvml",)),
    ]


def _side(stand: Stand) -> int:
    return 8192 if stand.device.type != "cpu" else 1024


def products(stand: Stand, dtype: torch.dtype) -> Measured:
    """Of two large square matrices."""
    if stand.device.type == "cpu" and dtype != torch.float32:
        raise Skipped("hv15 computes in float32 on a processor")
    if stand.on_cuda and dtype == torch.bfloat16 and torch.cuda.get_device_capability(stand.device) < (8, 0):
        raise Skipped("this GPU has no bfloat16")
    side = _side(stand)
    a, b = stand.randn(side, side, dtype=dtype), stand.randn(side, side, dtype=dtype)
    return _product_rate(stand, str(dtype).removeprefix("torch."), side, lambda: a @ b)


def fp8_products(stand: Stand) -> Measured:
    """Of e4m3 numbers with one scale each (`torch._scaled_mm`), as in `quantize: fp8_fast`."""
    if stand.device.type == "cpu":
        raise Skipped("only on GPUs")
    if stand.on_cuda and torch.cuda.get_device_capability(stand.device) < (8, 9):
        raise Skipped("this GPU cannot multiply fp8 numbers")
    side = _side(stand)
    a, b = (stand.randn(side, side).to(torch.float8_e4m3fn) for _ in range(2))
    one = torch.ones((), dtype=torch.float32, device=stand.device)
    return _product_rate(
        stand, "fp8", side, lambda: torch._scaled_mm(a, b.t(), scale_a=one, scale_b=one, out_dtype=stand.dtype)
    )


def _product_rate(stand: Stand, name: str, side: int, product: Callable[[], object]) -> Measured:
    seconds = stand.clock.seconds(product)
    if seconds is None:
        return Measured()
    flops = 2 * side**3
    stand.rates.products[name] = flops / seconds
    return Measured(seconds=seconds, flops=flops, rate=flops / seconds / TERA, unit="TFLOP/s")


def bandwidth(stand: Stand) -> Measured:
    """An addition into a third tensor: two are read, one is written."""
    size = (64 * MIB if stand.device.type == "cpu" else GIB) // 4
    a, b = (torch.ones(size, dtype=torch.float32, device=stand.device) for _ in range(2))
    out = torch.empty_like(a)
    seconds = stand.clock.seconds(lambda: torch.add(a, b, out=out))
    return _rate(stand, "bandwidth", 3 * a.nbytes, seconds)


def launches(stand: Stand) -> Measured:
    """Additions to a small tensor, queued one after the other by Python."""
    x = torch.zeros(64, device=stand.device)

    def many() -> None:
        for _ in range(LAUNCHES):
            x.add_(1)

    seconds = stand.clock.seconds(many)
    if seconds is None:
        return Measured()
    stand.learn(launch=seconds / LAUNCHES)
    return Measured(rate=seconds / LAUNCHES * 1e6, unit="us")


def copies(stand: Stand, name: str, *, pinned: bool) -> Measured:
    """Of one large piece of memory; `name` is that of the rate in `DeviceRates`."""
    if stand.device.type == "cpu":
        raise Skipped("only on GPUs")
    size = 512 * MIB
    host = torch.ones(size, dtype=torch.uint8, device="cpu", pin_memory=pinned and stand.on_cuda)
    device = torch.ones(size, dtype=torch.uint8, device=stand.device)
    target, source = (host, device) if name == "to_host" else (device, host)
    seconds = stand.clock.seconds(lambda: target.copy_(source, non_blocking=pinned))
    return _rate(stand, name, size, seconds)


def loading(stand: Stand) -> Measured:
    """From the disk, not from the system's cache, to the device."""
    if not stand.has_data:
        raise Skipped("the device has no data")
    count, size = 8, (4 if stand.device.type == "cpu" else 64) * MIB
    path = stand.folder / "loading.safetensors"
    try:
        save_file({f"{i}": torch.randint(255, (size,), dtype=torch.uint8) for i in range(count)}, path)

        def read() -> None:
            with safe_open(path, framework="pt", device="cpu") as file:
                for name in file.keys():  # noqa: SIM118  # not a dict
                    file.get_tensor(name).to(stand.device)

        _drop_from_cache(path)
        return _rate(stand, "loading", count * size, stand.clock.timed(read, 1))
    finally:
        path.unlink(missing_ok=True)


def start(stand: Stand) -> Measured:
    """A process that imports what a training does, until the device has a number; its files are in memory already."""
    if not stand.has_data:
        raise Skipped("the device has no data")
    path = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})"  # an unpacked tree is not installed
    code = f"{path}; import torch, hv15.train.run; torch.zeros(1, device={str(stand.device)!r})"
    run = partial(subprocess.run, [sys.executable, "-P", "-c", code], check=True, capture_output=True)
    seconds = stand.clock.timed(run, 1)
    stand.learn(start=seconds)
    return Measured(seconds=seconds)


def _drop_from_cache(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _rate(stand: Stand, name: str, size: int, seconds: float | None) -> Measured:
    if seconds is None:
        return Measured()
    stand.learn(**{name: size / seconds})
    return Measured(seconds=seconds, rate=size / seconds / GB, unit="GB/s")


def nvml(stand: Stand) -> Measured:
    """The driver, and the state of the GPU under no load: a throttled one explains slow steps."""
    if not stand.on_cuda:
        raise Skipped("only on NVIDIA's GPUs")
    import pynvml as driver

    driver.nvmlInit()
    uuid = str(torch.cuda.get_device_properties(stand.device).uuid)
    gpu = driver.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
    asked: list[tuple[str, Callable[[], object]]] = [
        ("driver {}", lambda: _text(driver.nvmlSystemGetDriverVersion())),
        ("{} W at most", lambda: driver.nvmlDeviceGetEnforcedPowerLimit(gpu) // 1000),
        ("{} MHz at most", lambda: driver.nvmlDeviceGetMaxClockInfo(gpu, driver.NVML_CLOCK_SM)),
        ("{} C", lambda: driver.nvmlDeviceGetTemperature(gpu, driver.NVML_TEMPERATURE_GPU)),
        ("{} processes", lambda: len(driver.nvmlDeviceGetComputeRunningProcesses(gpu))),
    ]
    said = []
    for words, ask in asked:
        with suppress(driver.NVMLError):  # not every GPU and system tells all: laptops no power, WSL no processes
            said.append(words.format(ask()))
    return Measured(note=", ".join(said))


def _text(words: str | bytes) -> str:
    """Older versions of NVML's package give bytes."""
    return words.decode() if isinstance(words, bytes) else words
