"""What the driver says, and how long a process takes to start."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from hv15.records.device_rates import DeviceRates
from hv15.selftest.machine import nvml, start
from hv15.selftest.stand import Stand


class NVMLError(Exception):
    """As of NVML's package."""


def refused(*_: object) -> int:
    raise NVMLError("Not Supported")


@pytest.mark.parametrize("version", ["580.1", b"580.1"])
def test_what_a_gpu_does_not_tell_is_left_out(
    version: str | bytes, stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Laptops have no limit of power, WSL shows no processes."""
    package = ModuleType("pynvml")
    said = {
        "NVMLError": NVMLError,
        "NVML_CLOCK_SM": 1,
        "NVML_TEMPERATURE_GPU": 0,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetHandleByUUID": lambda uuid: {"GPU-12-34": "handle"}[uuid],
        "nvmlSystemGetDriverVersion": lambda: version,
        "nvmlDeviceGetEnforcedPowerLimit": refused,
        "nvmlDeviceGetMaxClockInfo": lambda handle, kind: 1980,
        "nvmlDeviceGetTemperature": lambda handle, kind: 41,
        "nvmlDeviceGetComputeRunningProcesses": refused,
    }
    for name, value in said.items():
        setattr(package, name, value)
    monkeypatch.setitem(sys.modules, "pynvml", package)
    monkeypatch.setattr(Stand, "on_cuda", True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="12-34"))
    assert nvml(stand).note == "driver 580.1, 1980 MHz at most, 41 C"


@pytest.mark.slow
def test_the_start_of_a_process_becomes_a_rate(stand: Stand) -> None:
    found = start(stand)
    assert found.seconds is not None
    assert stand.rates == DeviceRates(
        device="cpu", memory=stand.memory, torch=str(torch.__version__), start=found.seconds
    )
