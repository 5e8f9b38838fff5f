"""System: GPUs, processor, memory and disk, now and in the last minutes, and the run's share of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from tui.data.system import SystemSample
from tui.messages import MachineSeen
from tui.screens.base import DashboardScreen
from tui.units import bar, size
from tui.widgets.history import History
from tui.widgets.machine_panel import MachinePanel
from tui.widgets.process_table import ProcessTable, process_rows


class SystemScreen(DashboardScreen):
    """The machine and the run on it."""

    NAME: ClassVar[str] = "system"
    FIRST: ClassVar[str] = "#processes"
    CSS_PATH = "system.tcss"
    HELP = """GPUs as the driver reports them, else the processor; memory over the last minutes under its limit, with
    the highest value seen; the run's processes, and other programs on the same GPUs."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("v", "next_device", "Next device", id="system-device", tooltip="memory history of the next GPU"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._device = 0
        self._sample: SystemSample | None = None

    def body(self) -> Iterable[Widget]:
        with Horizontal(id="system-top"):
            with Vertical(id="system-left"):
                yield MachinePanel(id="device").add_class("pane")
                yield Static(id="machine", classes="pane")
                yield History(lambda value: f"{value:.0f} %", id="use").add_class("pane")
            yield History(size, id="history").add_class("pane")
        with Horizontal(id="system-bottom"):
            yield ProcessTable(id="processes").add_class("pane")
            yield Static(id="phases", classes="pane")

    def on_mount(self) -> None:
        self.query_one("#device").border_title = "Device"
        self.query_one("#machine").border_title = "Machine"
        self.query_one("#processes").border_title = "Processes of the run"
        self.query_one("#phases").border_title = "Peak by phase"

    def on_machine_seen(self, message: MachineSeen) -> None:
        sample = self._sample = message.sample
        files = self.dashboard.files
        names = [
            "cpu",
            "memory",
            *(f"gpu{gpu.index}_{what}" for gpu in sample.gpus for what in ("used", "utilisation")),
        ]
        peaks = files.peaks
        self.query_one(MachinePanel).show(
            sample, {name: files.ring(name)[1] for name in names}, max(peaks.values(), default=0)
        )
        self.say("#machine", machine_text(sample))
        self.query_one(ProcessTable).set_rows(process_rows(sample))
        self.say("#phases", phase_text(peaks))
        self._show_history()

    def action_next_device(self) -> None:
        self._device += 1
        self._show_history()

    def _show_history(self) -> None:
        sample, files = self._sample, self.dashboard.files
        if sample is None:
            return
        memory, use = self.query_one("#history", History), self.query_one("#use", History)
        if sample.gpus:
            gpu = sample.gpus[self._device % len(sample.gpus)]
            peak = max(files.peaks.values(), default=0) if len(sample.gpus) == 1 else 0
            memory.show(*files.ring(f"gpu{gpu.index}_used"), limit=gpu.total, peak=peak)
            memory.border_title = Content(f"VRAM of GPU{gpu.index} ({gpu.name})")
            use.show(*files.ring(f"gpu{gpu.index}_utilisation"), limit=100.0)
            use.border_title = f"Use of GPU{gpu.index}"
        else:
            memory.show(*files.ring("memory"), limit=sample.memory_total)
            memory.border_title = "Memory of the machine"
            use.show(*files.ring("cpu"), limit=100.0)
            use.border_title = "Use of the processor"
        memory.border_subtitle = Content(f"peak {size(memory.peak)} of {size(memory.limit)}")


def machine_text(sample: SystemSample) -> Content:
    """What the device's lines do not show: processor and memory besides GPUs, the disk, the run's share."""
    disk = sample.disk_total - sample.disk_free
    lines = [
        _line("Disk", disk / max(1, sample.disk_total), f"{size(sample.disk_free)} free of {size(sample.disk_total)}")
    ]
    if sample.gpus:
        memory = sample.memory_used / max(1, sample.memory_total)
        used = f"{size(sample.memory_used)} of {size(sample.memory_total)}"
        lines.insert(0, _line("CPU", sample.cpu / 100, f"{sample.cpu:.0f} % of {sample.cpus} cores"))
        lines.insert(1, _line("RAM", memory, used))
        run = f"{size(sample.rss)} in memory" if sample.rss else "nothing runs here"
        lines.append(Content.assemble(("Run  ", "bold"), run))
    return Content("\n").join(lines)


def phase_text(peaks: dict[str, int]) -> Content:
    """The most memory that each phase of the run has taken."""
    if not peaks:
        return Content.styled("nothing measured yet", "$faint")
    most, width = max(1, *peaks.values()), max(len(name) for name in peaks)
    lines = [
        Content.assemble(f"{name or 'run':<{width}}  ", (bar(peak / most, 10), "$primary"), f" {size(peak)}")
        for name, peak in sorted(peaks.items(), key=lambda each: -each[1])
    ]
    return Content("\n").join(lines)


def _line(name: str, share: float, facts: str) -> Content:
    return Content.assemble(
        (f"{name:<5}", "bold"), (bar(share, 10), "$error" if share > 0.95 else "$primary"), f" {facts}"
    )
