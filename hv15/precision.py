"""Which device and which number format a job computes with."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from hv15.errors import UserError

if TYPE_CHECKING:
    import torch

    from hv15.config.cache import CacheSettings


log = logging.getLogger(__name__)

_DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,2})?", re.ASCII)


def check_device_name(name: str) -> str:
    """Return the name of a device as it is, if it can be one.

    Raises:
        ValueError: it cannot, as the error says.
    """
    if not _DEVICE.fullmatch(name):
        raise ValueError(f"found '{name}', expected auto, cpu, cuda or cuda:0, cuda:1, ...")
    return name


def pick_device(name: str, source: str = "runtime.device") -> torch.device:
    """The device of a `runtime.device` setting: `auto` is the first GPU, or the CPU where there is none.

    Args:
        source: where the name stands, for the error.

    Raises:
        UserError: the named device is not there.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    count = torch.cuda.device_count() if device.type == "cuda" else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        found = f"{count} GPUs" if count else "no usable GPU"
        raise UserError(f"{source}: {name}: this machine has {found}", hint=f"set {source} to auto")
    return device


def pick_text_device(cache: CacheSettings, name: str) -> torch.device:
    """Where prompts are encoded: on the CPU if `cache.text_encoder_cpu` says so, else on the device of that name."""
    return pick_device("cpu" if cache.text_encoder_cpu else name)


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number format in which the transformer computes: `auto` is bfloat16 on a GPU that has it, else float32.

    A CPU without bfloat16 hardware computes it a hundred times slower than float32, so it is never chosen there.
    """
    import torch

    if name == "auto":
        has_bfloat16 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        return torch.bfloat16 if has_bfloat16 else torch.float32
    return _named(name, device)


def pick_encoder_dtype(name: str, device: torch.device) -> torch.dtype:
    """The same for VAE, Qwen and SigLIP: `auto` is float16 on a GPU, as in the official program, else float32."""
    import torch

    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    return _named(name, device)


def storage_dtype(name: str) -> torch.dtype | None:
    """The number format of stored tensors; `auto` is None: as computed."""
    return None if name == "auto" else named_dtype(name)


def named_dtype(name: str) -> torch.dtype:
    """The number format of a setting that names one: float32, bfloat16 or float16."""
    import torch

    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def _named(name: str, device: torch.device) -> torch.dtype:
    dtype = named_dtype(name)
    if device.type == "cpu" and dtype.itemsize < 4:
        log.warning("%s on a CPU: correct, but often a hundred times slower than float32", name)
    return dtype
