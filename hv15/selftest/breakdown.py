"""Where the time of a step goes, by the profiler's totals: attention, products, elementwise, copies, gaps."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable

import torch
from torch.profiler import ProfilerActivity, profile

from hv15.selftest.stand import Stand

ATTENTION, PRODUCTS, COPIES, ELEMENTWISE, GAPS = "attention", "products", "copies", "elementwise", "gaps"
_KINDS = (
    (ATTENTION, re.compile(r"attention|flash|fmha|sdpa|sage", re.IGNORECASE)),
    (
        PRODUCTS,
        re.compile(r"gemm|gemv|cutlass|cublas|nvjet|splitK|conv|(?<!Ga)mma|matmul|[:_](add|badd)?b?mm_?$|_scaled_mm"),
    ),
    (COPIES, re.compile(r"memcpy|memset|copy_", re.IGNORECASE)),
)


def kind_of(name: str) -> str:
    """The kind of work of a kernel of a GPU, or of an operator of torch on a processor."""
    return next((kind for kind, pattern in _KINDS if pattern.search(name)), ELEMENTWISE)


def breakdown(totals: Iterable[tuple[str, float]], whole: float) -> dict[str, float]:
    """Return the seconds of each kind of work in a step.

    Args:
        totals: name of each kernel or operator, and its seconds in all.
        whole: seconds of the step; in the rest, `gaps`, nothing ran.
    """
    found: dict[str, float] = {}
    for name, seconds in totals:
        found[kind_of(name)] = found.get(kind_of(name), 0.0) + seconds
    return {**found, GAPS: max(0.0, whole - sum(found.values()))}


def profiled(stand: Stand, work: Callable[[], object], seconds: float | None) -> dict[str, float]:
    """Run the work once under the profiler, and return the seconds of each kind of work in it.

    Args:
        seconds: the time of one call without the profiler, which slows it down.

    Returns:
        Nothing where the time is not known, or where the driver shows no kernels to this user.
    """
    if seconds is None:
        return {}
    os.environ["KINETO_LOG_LEVEL"] = "99"  # it would write lines of its own among the report's
    activity = ProfilerActivity.CUDA if stand.on_cuda else ProfilerActivity.CPU
    with profile(activities=[activity]) as found:
        work()
        stand.clock.wait()
    events = found.key_averages()
    if stand.on_cuda:
        kernels = [each for each in events if each.device_type == torch.autograd.DeviceType.CUDA]
        totals = [(each.key, each.self_device_time_total / 1e6) for each in kernels]
        return breakdown(totals, seconds) if totals else {}
    return breakdown(((each.key, each.self_cpu_time_total / 1e6) for each in events), seconds)
