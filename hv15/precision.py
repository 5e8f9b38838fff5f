"""Which device and which number format a job computes with."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from hv15.choices import DEVICE_NAMES, DEVICE_PATTERN
from hv15.errors import UserError

if TYPE_CHECKING:
    import torch

    from hv15.config.cache import CacheSettings


log = logging.getLogger(__name__)


def check_device_name(name: str) -> str:
    """Return the name of a device as it is, if it can be one.

    Raises:
        ValueError: it cannot, as the error says.
    """
    if not re.fullmatch(DEVICE_PATTERN, name, re.ASCII):
        raise ValueError(f"found '{name}', expected {DEVICE_NAMES}")
    return name


def pick_device(name: str, *, option: str | None = None) -> torch.device:
    """The device of a name: `auto` is the first GPU, or the CPU where there is none.

    Args:
        option: the option of the command line that gave the name; None: the setting `runtime.device` did.

    Raises:
        UserError: it is not a device's name, or this machine has no such device.
    """
    import torch

    try:
        check_device_name(name)
    except ValueError as error:
        raise _unusable(name, option, str(error)) from None
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if int(number or 0) >= count:
        found = f"{count} GPU{'s' if count > 1 else ''}, numbered from 0" if count else "no usable GPU"
        raise _unusable(name, option, f"this machine has {found}")
    return torch.device(kind, int(number)) if number else torch.device(kind)


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


def _unusable(name: str, option: str | None, found: str) -> UserError:
    if option is None:
        return UserError(f"runtime.device: {name}: {found}", hint="set runtime.device to auto")
    return UserError(f"{option} {name}: {found}", hint=f"use {option} auto")
