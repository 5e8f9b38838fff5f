"""The GPUs of this machine as NVML sees them; where there is none, a sentence says so."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

RETRY_S = 30.0


@dataclass(frozen=True)
class GpuProcess:
    """A process on a GPU."""

    pid: int
    used: int
    """Bytes; 0 if the driver does not say."""
    of_this_run: bool = False


@dataclass(frozen=True)
class Gpu:
    """One GPU now. None stands for what the driver does not say."""

    index: int
    name: str
    used: int
    """Bytes."""
    total: int
    utilisation: float | None = None
    """Percent."""
    temperature: float | None = None
    """Degrees Celsius."""
    power: float | None = None
    """Watts."""
    power_limit: float | None = None
    processes: tuple[GpuProcess, ...] = ()


class GpuSource(Protocol):
    """Where GPUs are read from."""

    @property
    def note(self) -> str:
        """Why there are none; "" when there are."""

    def read(self) -> tuple[Gpu, ...]:
        """Return all GPUs as they are now; never raises."""


class ScriptedGpus:
    """GPUs that a function invents: for the demo and for tests."""

    def __init__(self, function: Callable[[], tuple[Gpu, ...]], note: str = "") -> None:
        self._function, self.note = function, note

    def read(self) -> tuple[Gpu, ...]:
        return self._function()


class NvmlGpus:
    """The real GPUs. A driver that fails is asked again after half a minute.

    Args:
        library: the module pynvml, which has no types; imported when it is first needed.
    """

    def __init__(self, library: Any = None, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.note = ""
        self._library, self._monotonic = library, monotonic
        self._ready = False
        self._next_try = float("-inf")

    def read(self) -> tuple[Gpu, ...]:
        if not self._ready and not self._start():
            return ()
        try:
            count = self._library.nvmlDeviceGetCount()
            found = tuple(self._gpu(index) for index in range(count))
        except Exception as error:  # whatever a driver may raise; the dashboard continues without it
            self._fail(error)
            return ()
        self.note = "" if found else "no NVIDIA GPU in this machine"
        return found

    def _start(self) -> bool:
        now = self._monotonic()
        if now < self._next_try:
            return False
        try:
            if self._library is None:
                import pynvml

                self._library = pynvml
            self._library.nvmlInit()
        except ImportError:
            self.note, self._next_try = "GPUs cannot be read: nvidia-ml-py is not installed", float("inf")
        except Exception as error:
            self._fail(error)
        else:
            self._ready = True
        return self._ready

    def _fail(self, error: Exception) -> None:
        words = str(error) or type(error).__name__
        missing = "Not Found" in words or "Driver Not Loaded" in words
        self.note = "no NVIDIA GPU or driver here" if missing else f"the GPU's driver does not answer: {words}"
        self._ready, self._next_try = False, self._monotonic() + RETRY_S

    def _gpu(self, index: int) -> Gpu:
        nvml = self._library
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        name = self._answer_to(nvml.nvmlDeviceGetName, handle)
        utilisation = self._answer_to(nvml.nvmlDeviceGetUtilizationRates, handle)
        return Gpu(
            index=index,
            name=name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name or f"GPU {index}"),
            used=int(memory.used),
            total=int(memory.total),
            utilisation=None if utilisation is None else float(utilisation.gpu),
            temperature=self._number(nvml.nvmlDeviceGetTemperature, handle, 0),
            power=_thousandth(self._number(nvml.nvmlDeviceGetPowerUsage, handle)),
            power_limit=_thousandth(self._number(nvml.nvmlDeviceGetEnforcedPowerLimit, handle)),
            processes=tuple(
                GpuProcess(int(each.pid), int(each.usedGpuMemory or 0))
                for each in self._answer_to(nvml.nvmlDeviceGetComputeRunningProcesses, handle) or ()
            ),
        )

    def _answer_to(self, question: Callable[..., Any], *arguments: Any) -> Any:
        """The answer, or None where this GPU or driver does not know it."""
        try:
            return question(*arguments)
        except Exception:
            return None

    def _number(self, question: Callable[..., Any], *arguments: Any) -> float | None:
        answer = self._answer_to(question, *arguments)
        return float(answer) if isinstance(answer, int | float) else None


def _thousandth(value: float | None) -> float | None:
    return None if value is None else value / 1000
