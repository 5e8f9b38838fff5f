"""GPUs, how much of their memory a step can have, and how fast they multiply. Loads no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from hv15.errors import UserError
from hv15.units import GIB

CONTEXT = int(0.6 * GIB)
"""Allowance for the driver's context, the libraries' code and handles, and cuBLAS's workspace (8 to 32 MiB)."""
FRAGMENTS = 0.04
"""Allowance for memory that the allocator holds but cannot use: a share of what is freed again (all but weights)."""
CONVOLUTIONS = int(0.5 * GIB)
"""Allowance for cuDNN's workspace in the VAE's stages."""
EXCHANGE = int(0.5 * GIB)
"""Allowance for NCCL's buffers, where several GPUs compute a video together. Assumed; it has not been measured."""
PROCESS = int(0.45 * GIB)
"""Memory of a process on the CPU before it loads a model: Python, torch and their libraries."""
UTILISATION = {"train": 0.45, "denoise": 0.5, "encode latents": 0.3, "condition": 0.3, "decode": 0.3}
"""Assumed part of the peak arithmetic that a stage reaches; 0.4 for those not named."""
BUS = 20e9
"""Assumed bytes a second between the machine's memory and the GPU (PCIe 4.0 x16, pinned)."""
DISK = 1e9
"""Assumed bytes a second at which a model is read and brought into its number format (NVMe, or the page cache)."""


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


def _gpu(name: str, gib: float, tflops: float, *, bfloat16: bool = True) -> Device:
    return Device(name, int(gib * GIB), tflops, bfloat16=bfloat16)


DEVICES = (
    _gpu("RTX 3060", 12, 25), _gpu("RTX 3080", 10, 60), _gpu("RTX 3090", 24, 71), _gpu("RTX 4060 Ti 16GB", 16, 44),
    _gpu("RTX 4070", 12, 58), _gpu("RTX 4070 Ti Super", 16, 88), _gpu("RTX 4080", 16, 97), _gpu("RTX 4090", 24, 165),
    _gpu("RTX 5060 Ti 16GB", 16, 47), _gpu("RTX 5070", 12, 62), _gpu("RTX 5070 Ti", 16, 88),
    _gpu("RTX 5080", 16, 113), _gpu("RTX 5090", 32, 210), _gpu("RTX A6000", 48, 155), _gpu("RTX 6000 Ada", 48, 364),
    _gpu("RTX PRO 6000", 96, 504), _gpu("L4", 24, 121), _gpu("L40S", 48, 362), _gpu("A10", 24, 125),
    _gpu("A40", 48, 150), _gpu("A100 40GB", 40, 312), _gpu("A100 80GB", 80, 312), _gpu("H100", 80, 989),
    _gpu("H200", 141, 989), _gpu("B200", 180, 2250), _gpu("T4", 16, 65, bfloat16=False),
    _gpu("V100 16GB", 16, 125, bfloat16=False), _gpu("V100 32GB", 32, 125, bfloat16=False),
)  # fmt: skip


def find_device(name: str) -> Device:
    """A GPU by the name that people use: "4090", "rtx 4090", "a100-80gb".

    Raises:
        UserError: the name fits no known GPU, or several.
    """
    wanted = _plain(name)
    found = [device for device in DEVICES if _plain(device.name) == wanted]
    found = found or [device for device in DEVICES if wanted in _plain(device.name)]
    if len(found) != 1:
        names = ", ".join(device.name for device in found or DEVICES)
        what = "fits several GPUs" if found else "fits no known GPU"
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


def recognised(name: str, memory: int, bfloat16: bool = True) -> Device:
    """A GPU as its driver calls it ("NVIDIA GeForce RTX 4090"), with the speed of the one in the list."""
    plain = _plain(name)
    alike = [each for each in DEVICES if _plain(re.sub(r" \d+GB$", "", each.name)) in plain]
    longest = max(alike, key=lambda each: (len(each.name.split(" ")), -abs(each.memory - memory)), default=None)
    if longest is None:
        return Device(name, memory, None, bfloat16=bfloat16)
    return replace(longest, name=name, memory=memory, bfloat16=bfloat16)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
