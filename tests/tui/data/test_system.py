from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from hv15.runs.record import RunFolder, RunRecord
from tui.data.system import Gpu, GpuProcess, NvmlGpus, ScriptedGpus, SystemReader


class Nvml:
    """A driver with one GPU, which knows no power limit and may fail."""

    broken = False

    def __getattr__(self, name: str) -> Any:
        answers = {
            "nvmlInit": None,
            "nvmlDeviceGetCount": 1,
            "nvmlDeviceGetHandleByIndex": "handle",
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=3 << 30, total=24 << 30),
            "nvmlDeviceGetName": b"RTX 4090",
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=98),
            "nvmlDeviceGetTemperature": 61,
            "nvmlDeviceGetPowerUsage": 401_000,
            "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=os.getpid(), usedGpuMemory=None)],
        }

        def ask(*_: Any) -> Any:
            if self.broken or name not in answers:
                raise RuntimeError("Unknown Error")
            return answers[name]

        return ask


def run_of(root: Path, process: subprocess.Popen[bytes]) -> RunRecord:
    run = RunFolder(root, "one")
    run.create(root / "config.yaml")
    return run.write_record(process.pid, ["x"], [])


def test_what_a_driver_tells_is_shown_and_what_not_is_left_open() -> None:
    [gpu] = NvmlGpus(Nvml()).read()
    assert (gpu.name, gpu.used, gpu.total, gpu.utilisation) == ("RTX 4090", 3 << 30, 24 << 30, 98.0)
    assert (gpu.power, gpu.power_limit, gpu.processes[0].used) == (401.0, None, 0)


def test_a_driver_that_fails_is_asked_again_later() -> None:
    now, driver = [0.0], Nvml()
    gpus = NvmlGpus(driver, monotonic=lambda: now[0])
    assert gpus.read()
    driver.broken = True
    assert gpus.read() == ()
    assert "does not answer: Unknown Error" in gpus.note
    driver.broken = False
    assert gpus.read() == ()
    now[0] += 31
    assert gpus.read()
    assert gpus.note == ""


def test_without_a_gpu_it_is_said(tmp_path: Path) -> None:
    class Missing:
        def nvmlInit(self) -> None:  # noqa: N802
            raise RuntimeError("NVML Shared Library Not Found")

    sample = SystemReader(tmp_path, NvmlGpus(Missing())).refresh()
    assert (sample.gpus, sample.note) == ((), "no NVIDIA GPU or driver here")
    assert 0 < sample.memory_used < sample.memory_total == psutil.virtual_memory().total
    assert 0 < sample.disk_free < sample.disk_total
    assert sample.processes == ()


def test_the_run_s_processes_are_those_of_its_tree(tmp_path: Path) -> None:
    code = "import subprocess, sys; x = bytearray(50 << 20); subprocess.run(['sleep', '60'])"
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True) as process:
        try:
            record = run_of(tmp_path, process)
            parent = psutil.Process(process.pid)
            while not parent.children():
                pass
            child = parent.children()[0]
            mine = (GpuProcess(child.pid, 7), GpuProcess(1, 5))
            reader = SystemReader(tmp_path, ScriptedGpus(lambda: (Gpu(0, "x", 12, 24, processes=mine),)))
            sample = reader.refresh(record, phase="train")
            assert {each.pid for each in sample.processes} == {process.pid, child.pid}
            assert sample.rss > 50 << 20
            assert [each.of_this_run for each in sample.gpus[0].processes] == [True, False]
            assert (sample.run_vram, reader.peaks) == (7, {"train": 7})
        finally:
            child.kill()
            process.kill()
            psutil.wait_procs([child, parent])  # signals are delivered when the system comes to it
    assert reader.refresh(record).processes == ()
    assert reader.refresh(None).rss == 0


def test_rings_keep_the_last_samples(tmp_path: Path) -> None:
    now = [0.0]
    used = iter(range(100))
    reader = SystemReader(
        tmp_path / "gone", ScriptedGpus(lambda: (Gpu(0, "x", next(used), 24),)), clock=lambda: now[0], history=3
    )
    for second in range(5):
        now[0] = second
        reader.refresh()
    assert reader.ring("gpu0_used") == ([2.0, 3.0, 4.0], [2, 3, 4])
    assert reader.ring("nothing") == ([], [])
    reader.gpus = ScriptedGpus(lambda: (), "gone")
    reader.refresh()
    assert reader.ring("gpu0_used") == ([], [])


def test_every_thread_sees_how_busy_the_processors_were_since_the_last_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = [(100.0, 50.0), (103.0, 51.0), (104.0, 54.0), (104.0, 54.0)]

    def times() -> SimpleNamespace:
        user, idle = ticks.pop(0)
        return SimpleNamespace(_asdict=lambda: {"user": user, "guest": 1.0, "idle": idle, "iowait": 5.0})

    monkeypatch.setattr(psutil, "cpu_times", times)
    reader = SystemReader(tmp_path, ScriptedGpus(lambda: ()))
    seen: list[float] = []
    for _ in range(3):
        thread = threading.Thread(target=lambda: seen.append(reader.refresh().cpu))
        thread.start()
        thread.join()
    assert seen == [75.0, 25.0, 0.0]


def test_nvml_itself_or_its_absence(tmp_path: Path) -> None:
    """On a machine without a driver the real library must end in a sentence, not in an exception."""
    gpus = NvmlGpus()
    assert bool(gpus.read()) != bool(gpus.note)
    pytest.importorskip("pynvml")
