"""The machine that the run is on: GPUs, CPU, memory of the run's processes, disk; now and over the last minutes."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from hv15.runs.processes import run_processes
from hv15.runs.record import RunRecord
from tui.data.gpus import Gpu, GpuProcess, GpuSource, NvmlGpus, ScriptedGpus

__all__ = ["Gpu", "GpuProcess", "GpuSource", "NvmlGpus", "Process", "ScriptedGpus", "SystemReader", "SystemSample"]

LOOK_FOR_PROCESSES_S = 5.0
"""How often the run's processes are searched for among all processes, which takes some milliseconds."""


@dataclass(frozen=True)
class Process:
    """A process of the run."""

    pid: int
    name: str
    rss: int
    """Bytes."""
    cpu: float
    """Percent of one core since the last measurement."""


@dataclass(frozen=True)
class SystemSample:
    """The machine at one moment."""

    time: float
    cpu: float
    """Percent of all cores."""
    cpus: int
    memory_used: int
    memory_total: int
    rss: int
    """Bytes of all processes of the run together."""
    processes: tuple[Process, ...]
    disk_free: int
    disk_total: int
    gpus: tuple[Gpu, ...]
    note: str
    """Why there are no GPUs; "" when there are."""

    @property
    def run_vram(self) -> int:
        """Bytes that the run holds on all GPUs together; 0 if the driver does not say."""
        return sum(process.used for gpu in self.gpus for process in gpu.processes if process.of_this_run)


class Processor:
    """How busy the processors were since the last measurement, whichever thread made it.

    `psutil.cpu_percent` counts for each thread separately, so the first call in each worker of a pool would return 0.
    """

    def __init__(self) -> None:
        self._last = self._times()

    def percent(self) -> float:
        """Percent of all cores since the last call, or since this object was made."""
        busy, whole = self._times()
        busy_before, whole_before = self._last
        self._last = busy, whole
        if whole <= whole_before:  # no tick has passed, or a container's counters went back
            return 0.0
        return min(100.0, max(0.0, 100 * (busy - busy_before) / (whole - whole_before)))

    @staticmethod
    def _times() -> tuple[float, float]:
        times = psutil.cpu_times()._asdict()
        guests = times.get("guest", 0.0) + times.get("guest_nice", 0.0)  # user and nice include them already
        whole = sum(times.values()) - guests
        return whole - times["idle"] - times.get("iowait", 0.0), whole


class SystemReader:
    """Measures, and keeps the last `history` samples."""

    def __init__(
        self,
        root: Path,
        gpus: GpuSource | None = None,
        clock: Callable[[], float] = time.time,
        history: int = 600,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.root = root
        self.gpus: GpuSource = gpus if gpus is not None else NvmlGpus()
        self.peaks: dict[str, int] = {}
        """Phase -> the run's peak in it: bytes on the GPUs, or of memory where there are none."""
        self._run = ""
        self._clock, self._monotonic = clock, monotonic
        self._history = history
        self._times: deque[float] = deque(maxlen=history)
        self._rings: dict[str, deque[float]] = {}
        self._processes: dict[int, psutil.Process] = {}
        self._looked: tuple[str, float] | None = None
        self._cpu = Processor()

    def refresh(self, record: RunRecord | None = None, phase: str = "") -> SystemSample:
        """Measure now.

        Args:
            record: the live run.
            phase: what it does, such as the rule of its longest job; its peak memory is kept.
        """
        if record is not None and record.id != self._run:
            self._run = record.id
            self.peaks.clear()
        processes = self._run_processes(record)
        memory = psutil.virtual_memory()
        disk_free, disk_total = self._disk()
        run_pids = {process.pid for process in processes}
        found = tuple(
            replace(gpu, processes=tuple(replace(each, of_this_run=each.pid in run_pids) for each in gpu.processes))
            for gpu in self.gpus.read()
        )
        sample = SystemSample(
            time=self._clock(),
            cpu=self._cpu.percent(),
            cpus=psutil.cpu_count() or 1,
            memory_used=memory.total - memory.available,
            memory_total=memory.total,
            rss=sum(process.rss for process in processes),
            processes=processes,
            disk_free=disk_free,
            disk_total=disk_total,
            gpus=found,
            note="" if found else self.gpus.note or "no GPU",
        )
        self._keep(sample, phase)
        return sample

    def ring(self, name: str) -> tuple[list[float], list[float]]:
        """Return times and values of cpu, memory, rss, disk_free, gpu0_used, gpu0_utilisation, ...; oldest first."""
        values = list(self._rings.get(name, ()))
        return list(self._times)[len(self._times) - len(values) :], values

    def _keep(self, sample: SystemSample, phase: str) -> None:
        values: dict[str, float] = {
            "cpu": sample.cpu,
            "memory": sample.memory_used,
            "rss": sample.rss,
            "disk_free": sample.disk_free,
        }
        for gpu in sample.gpus:
            values[f"gpu{gpu.index}_used"] = gpu.used
            values[f"gpu{gpu.index}_utilisation"] = gpu.utilisation or 0.0
        self._times.append(sample.time)
        for name, value in values.items():
            self._rings.setdefault(name, deque(maxlen=self._history)).append(value)
        for name in self._rings.keys() - values.keys():  # a GPU that no longer answers
            del self._rings[name]
        if phase:
            held = sample.run_vram or max((gpu.used for gpu in sample.gpus), default=0) or sample.rss
            self.peaks[phase] = max(self.peaks.get(phase, 0), held)

    def _disk(self) -> tuple[int, int]:
        for folder in (self.root, *self.root.absolute().parents):
            try:
                usage = shutil.disk_usage(folder)
            except OSError:
                continue
            return usage.free, usage.total
        return 0, 0

    def _run_processes(self, record: RunRecord | None) -> tuple[Process, ...]:
        if record is None:
            self._processes, self._looked = {}, None
            return ()
        now = self._monotonic()
        if self._looked is None or self._looked[0] != record.id or now - self._looked[1] >= LOOK_FOR_PROCESSES_S:
            found = {process.pid: process for process in run_processes(record)}
            kept = {pid: self._processes.get(pid, process) for pid, process in found.items()}
            self._processes, self._looked = kept, (record.id, now)
        measured = [each for process in self._processes.values() if (each := _measure(process)) is not None]
        return tuple(sorted(measured, key=lambda process: -process.rss))


def _measure(process: psutil.Process) -> Process | None:
    try:
        with process.oneshot():
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            return Process(process.pid, _name(process), process.memory_info().rss, process.cpu_percent())
    except psutil.Error:
        return None


def _name(process: psutil.Process) -> str:
    """The name that a person knows: `hv15 train` rather than `python3.11`."""
    try:
        words = process.cmdline()
    except psutil.Error:
        words = []
    for place, word in enumerate(words):
        if Path(word).name in ("hv15", "snakemake", "accelerate"):
            return " ".join([Path(word).name, *(each for each in words[place + 1 : place + 2] if each[:1] != "-")])
    return process.name()
