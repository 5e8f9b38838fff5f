"""Which device and which number format a job computes with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hv15.errors import UserError

if TYPE_CHECKING:
    import torch


def pick_device(name: str) -> torch.device:
    """The device of a `runtime.device` setting: `auto` is the first GPU, or the CPU where there is none.

    Raises:
        UserError: the named device is not there.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"runtime.device: {name}: this machine has no usable GPU", hint="set runtime.device to auto")
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number format of a `dtype` setting: `auto` is bfloat16 on a GPU that computes it, else float32.

    A CPU without bfloat16 hardware computes it a hundred times slower than float32, so it is never chosen there.
    """
    import torch

    if name == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    return dtypes[name]
