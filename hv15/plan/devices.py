"""GPUs, how much of their memory a step can have, and how fast they are. Loads no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from hv15.errors import UserError
from hv15.records.device_rates import DeviceRates
from hv15.units import GIB

CONTEXT = int(0.6 * GIB)
"""Assumed, unless measured: the driver's context, the libraries' code, and cuBLAS's workspace (8 to 32 MiB)."""
FRAGMENTS = 0.04
"""Assumed, unless measured: memory that the allocator holds but cannot use, as a share of all but weights."""
CONVOLUTIONS = int(0.5 * GIB)
"""Allowance for cuDNN's workspace in the VAE's stages."""
EXCHANGE = int(0.5 * GIB)
"""Allowance for NCCL's buffers, where several GPUs compute a video together. Assumed; it has not been measured."""
PROCESS = int(0.45 * GIB)
"""Memory of a process on the CPU before it loads a model: Python, torch and their libraries."""


@dataclass(frozen=True)
class Device:
    """Where the stages would run."""

    name: str
    memory: int
    """Bytes."""
    tflops: float | None
    """Dense bfloat16 operations with fp32 sums, as the maker states them; None: not known, so no times."""
    gpu: bool = True
    bfloat16: bool = True
    bandwidth: float | None = None
    """Bytes a second through its memory, as the maker states them."""
    rates: DeviceRates | None = None
    """What a self-test has measured on it."""

    @property
    def family(self) -> str:
        """The name without a size of memory."""
        return re.sub(r" \d+GB$", "", self.name)

    @property
    def context(self) -> int:
        """Bytes that the driver, the libraries' code and handles, and cuBLAS's workspace take."""
        return CONTEXT if self.rates is None or self.rates.context is None else self.rates.context

    def fragments(self, peak: int, weights: int) -> int:
        """Bytes that the allocator holds but cannot use when tensors take `peak`, `weights` of which stay."""
        if self.rates is None or self.rates.fragments is None:
            return int(FRAGMENTS * (peak - weights))
        return int(peak * self.rates.fragments / (1 - self.rates.fragments))


def _gpu(name: str, gib: float, tflops: float, gigabytes: float, *, bfloat16: bool = True) -> Device:
    """A GPU with so much memory, teraflops, and gigabytes a second, as its data sheet says."""
    return Device(name, int(gib * GIB), tflops, bfloat16=bfloat16, bandwidth=gigabytes * 1e9)


DEVICES = (
    _gpu("RTX 3060", 12, 25, 360), _gpu("RTX 3080", 10, 60, 760), _gpu("RTX 3090", 24, 71, 936),
    _gpu("RTX 4060 Ti 16GB", 16, 44, 288), _gpu("RTX 4070", 12, 58, 504), _gpu("RTX 4070 Ti Super", 16, 88, 672),
    _gpu("RTX 4080", 16, 97, 717), _gpu("RTX 4090", 24, 165, 1008), _gpu("RTX 5060 Ti 16GB", 16, 47, 448),
    _gpu("RTX 5070", 12, 62, 672), _gpu("RTX 5070 Ti", 16, 88, 896), _gpu("RTX 5080", 16, 113, 960),
    _gpu("RTX 5090", 32, 210, 1792), _gpu("RTX A6000", 48, 155, 768), _gpu("RTX 6000 Ada", 48, 364, 960),
    _gpu("RTX PRO 6000", 96, 504, 1792), _gpu("L4", 24, 121, 300), _gpu("L40S", 48, 362, 864),
    _gpu("A10", 24, 125, 600), _gpu("A40", 48, 150, 696), _gpu("A100 40GB", 40, 312, 1555),
    _gpu("A100 80GB", 80, 312, 2039), _gpu("H100", 80, 989, 3350), _gpu("H200", 141, 989, 4800),
    _gpu("B200", 180, 2250, 8000), _gpu("T4", 16, 65, 320, bfloat16=False),
    _gpu("V100 16GB", 16, 125, 900, bfloat16=False), _gpu("V100 32GB", 32, 125, 900, bfloat16=False),
)  # fmt: skip


def find_device(name: str, setting: str = "") -> Device:
    """A GPU by the name that people use: "4090", "rtx 4090", "a100-80gb".

    Args:
        setting: the one that names it; "" if the option `--device` does.

    Raises:
        UserError: the name fits no known GPU, or several.
    """
    wanted = plain_name(name)
    found = [device for device in DEVICES if plain_name(device.name) == wanted]
    found = found or [device for device in DEVICES if wanted in plain_name(device.name)]
    if len(found) != 1:
        names = ", ".join(device.name for device in found or DEVICES)
        what = "fits several GPUs" if found else "fits no known GPU"
        if setting:
            raise UserError(f"{setting}: {name} {what}", hint=f"use one of {names}")
        raise UserError(f"--device {name}: {what}", hint=f"use one of {names}, or --memory 16GiB")
    return found[0]


def device_of_size(text: str) -> Device:
    """Any GPU with so much memory: "16GiB", "24 GB", "16384MiB", "12".

    Raises:
        UserError: not a size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([GM])i?B?)?\s*", text, re.IGNORECASE)
    if match is None or not float(match[1]):
        raise UserError(f"--memory {text}: not a size", hint="write it as 16GiB")
    size = float(match[1]) / (1024 if match[2] in ("M", "m") else 1)
    return Device(f"a GPU with {size:g} GiB", int(size * GIB), None)


def detect_device(setting: str) -> Device:
    """The device that `runtime.device` would choose on this machine; it loads torch."""
    import psutil
    import torch

    from hv15.precision import pick_device

    device = pick_device(setting)
    if device.type != "cuda":
        return Device("this machine's CPU", psutil.virtual_memory().total, None, gpu=False, bfloat16=False)
    properties = torch.cuda.get_device_properties(device)
    bfloat16 = torch.cuda.get_device_capability(device) >= (8, 0)
    return recognised(properties.name, properties.total_memory, bfloat16)


def recognised(name: str, memory: int, bfloat16: bool | None = None) -> Device:
    """A GPU as its driver calls it ("NVIDIA GeForce RTX 4090"), with the speed of the one in the list.

    Args:
        bfloat16: whether it computes in it; None: as the one in the list, or yes.
    """
    entry = replace(listed(name, memory) or Device(name, memory, None), name=name, memory=memory)
    return entry if bfloat16 is None else replace(entry, bfloat16=bfloat16)


def listed(name: str, memory: int) -> Device | None:
    """Return the entry of DEVICES for a GPU as its driver calls it; of models that differ in memory, the nearest."""
    plain = plain_name(name)
    alike = [each for each in DEVICES if plain_name(each.family) in plain]
    return max(alike, key=lambda each: (len(each.name.split(" ")), -abs(each.memory - memory)), default=None)


def plain_name(name: str) -> str:
    """Return a name with only its letters, in lower case, and its digits."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
