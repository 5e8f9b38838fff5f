"""The GPUs of this machine, and one of its own for each job. Loads no torch.

Before a job lets torch look for GPUs, it locks a file that stands for a free one and leaves only that in
CUDA_VISIBLE_DEVICES. The kernel frees the lock when the process ends, also by kill -9. Jobs of all projects and runs of
a user on one machine share these locks. If CUDA_VISIBLE_DEVICES is set already, by a person or by SLURM, only
those GPUs are considered.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import tempfile
import time
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

from hv15.errors import UserError
from hv15.own_files import lock_own, text_if_locked

VISIBLE = "CUDA_VISIBLE_DEVICES"
LOCAL_RANK = "LOCAL_RANK"
"""Set by `accelerate launch`: the process's number on this machine, which is also that of its GPU."""
SLURM_JOB = "SLURM_JOB_ID"
LOOKED_AT_S = 0.02
"""A process that only looks whether a GPU is taken (`is_taken`) locks its file for less time."""
_DRIVERS = ("/dev/nvidiactl", "/dev/dxg")
"""Files that exist where NVIDIA's driver is installed: on Linux, under WSL2."""

log = logging.getLogger(__name__)

_held: list[int] = []
"""Descriptors of this process's locks: they stay open until it ends."""


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them: by number or by UUID."""
    return gpus_in(os.environ.get(VISIBLE))


def gpus_in(given: str | None) -> list[str]:
    """The GPUs that a process with this in CUDA_VISIBLE_DEVICES may use; with None, all of this machine."""
    if given is None:
        return _installed()
    names = takewhile(lambda name: name and not name.startswith("-"), map(str.strip, given.split(",")))
    return list(dict.fromkeys(names))  # as CUDA reads it: an invalid entry ends the list


def gpu_jobs(device: str) -> int:
    """How many jobs can have a GPU of their own, at least 1; `device` is the setting `runtime.device`."""
    return max(1, len(gpus())) if device in ("auto", "cuda") else 1


def take_gpu(device: str) -> None:
    """Reserve a GPU for this process until it ends; torch will see no other. Call it before torch looks for GPUs.

    If none is free, one is shared, as its memory may suffice. A GPU that is set by number, or is the
    only one, is marked as taken.

    Args:
        device: the setting `runtime.device`.
    """
    if device == "cpu" or _held:
        return
    names, rank = gpus(), os.environ.get(LOCAL_RANK, "")
    number = rank if rank.isdigit() else device.partition(":")[2]
    if number:
        for name in names[int(number) : int(number) + 1]:
            with suppress(OSError):  # this GPU is used in any case
                _lock(name)
    elif len(names) > 1:
        _take(names, 1)
    elif names:
        with suppress(OSError):
            _lock(names[0])


def is_taken(name: str) -> bool:
    """Whether a job has reserved a GPU, which is named as in CUDA_VISIBLE_DEVICES."""
    try:
        return text_if_locked(_lock_file(name)) is not None
    except OSError:
        return False


def take_gpus(device: str, count: int, setting: str) -> None:
    """Reserve several GPUs, for processes that this one starts; nothing is reserved on a machine without GPUs.

    Args:
        device: as for `take_gpu`.
        count: how many.
        setting: what asks for so many: "sample.context_parallel is 2".

    Raises:
        UserError: there are fewer GPUs, or `device` names one of them.
    """
    check_gpus(device, count, setting)
    if device != "cpu" and (names := gpus()):
        _take(names, count)


def check_gpus(device: str, count: int, setting: str) -> None:
    """Check that there are several GPUs for one job. On a machine without GPUs its processes share the CPU.

    Raises:
        UserError: as `take_gpus`, with the same arguments.
    """
    if device == "cpu":
        return
    names = gpus()
    if ":" in device:
        raise UserError(
            f"runtime.device: {device} is one GPU, but {setting}",
            hint=f"set runtime.device to auto; to choose the {count} GPUs, set {VISIBLE}",
        )
    if 0 < len(names) < count or (not names and device != "auto"):
        raise UserError(
            f"{setting}, which needs {count} GPUs on this machine, but this process may use {len(names)}",
            hint="set it to what the GPUs allow, or to 1 (off)",
        )


def held_locks() -> tuple[int, ...]:
    """The open files whose locks reserve this process's GPUs."""
    return tuple(_held)


def _take(names: list[str], count: int) -> None:
    """Lock as many GPUs as are free, share others for the rest, and leave only these to torch."""
    taken: list[str] = []
    failure: OSError | None = None
    try:
        for name in names:
            if len(taken) < count and _lock(name):
                taken.append(name)
    except OSError as error:
        failure = error
    start = os.getpid() % len(names)
    others = [name for name in names[start:] + names[:start] if name not in taken][: count - len(taken)]
    if failure is not None:
        log.warning("GPUs cannot be locked, so other jobs may use GPU %s as well: %s", ", ".join(others), failure)
    elif others:
        log.warning("all %d GPUs are taken by other jobs: GPU %s is shared", len(names), ", ".join(others))
    os.environ[VISIBLE] = ",".join(sorted(taken + others, key=names.index))


def _lock(name: str) -> bool:
    """Lock the file that stands for a GPU; False if another process has it.

    Raises:
        OSError: it cannot be locked here.
    """
    file = _lock_file(name)
    descriptor = lock_own(file)
    if descriptor is None:
        time.sleep(LOOKED_AT_S)
        descriptor = lock_own(file)
    if descriptor is None:
        return False
    _held.append(descriptor)
    return True


def _lock_file(name: str) -> Path:
    """The file that stands for a GPU.

    Raises:
        OSError: its folder cannot be made, or somebody else made it.
    """
    # Within a SLURM job, GPUs may be numbered from 0 no matter which they are. Other names mean the same GPU in each.
    job = os.environ.get(SLURM_JOB, "") if name.isdecimal() else ""
    return _folder() / re.sub(r"[^\w.-]", "_", f"{job}-{name}.gpu")


def _folder() -> Path:
    """The folder of this user's locks.

    Raises:
        OSError: it cannot be made, or somebody else made it.
    """
    folder = Path(tempfile.gettempdir()) / f"hv15-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(f"{folder} is not this user's")
    return folder


def _installed() -> list[str]:
    """The UUIDs of all GPUs, [] if there are none. (Numbers would follow CUDA's order, which may be another.)"""
    if not any(Path(driver).exists() for driver in _DRIVERS):
        return []
    try:
        import pynvml

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [str(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles]
    except Exception as error:  # whatever a driver may raise; torch finds its GPU without it
        log.debug("the GPUs cannot be counted: %s", error)
        return []


def gpu_models() -> list[str]:
    """The names of this machine's GPUs as the driver tells them, such as "NVIDIA H200"; [] if there are none."""
    if not any(Path(driver).exists() for driver in _DRIVERS):
        return []
    try:
        import pynvml

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [str(pynvml.nvmlDeviceGetName(handle)) for handle in handles]
    except Exception as error:  # as above
        log.debug("the GPUs' names cannot be read: %s", error)
        return []
