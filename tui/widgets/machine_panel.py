"""The device in a few lines: GPU use and memory with their last minutes, or CPU and memory where there is no GPU."""

from __future__ import annotations

from textual.content import Content
from textual.widget import Widget

from tui.data.system import Gpu, SystemSample
from tui.units import bar, size, sparkline

Rings = dict[str, list[float]]


class MachinePanel(Widget):
    """Redrawn whenever the machine was measured."""

    PART_NAME = "Device"
    HELP = """How busy the device is, and how much of its memory is in use. The screen System shows more. On a machine
    without a GPU this is the processor and the memory of the run."""

    DEFAULT_CSS = "MachinePanel { height: auto; min-height: 2; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.sample: SystemSample | None = None
        self.rings: Rings = {}
        self.peak = 0

    def show(self, sample: SystemSample, rings: Rings, peak: int = 0) -> None:
        """Show a sample, with the history of each value by its name."""
        taller = self.sample is None or len(self.sample.gpus) != len(sample.gpus)
        self.sample, self.rings, self.peak = sample, rings, peak
        self.refresh(layout=taller)  # the screen is laid out again only for another number of lines

    def render(self) -> Content:
        sample, width = self.sample, self.content_size.width
        if sample is None:
            return Content.styled("measuring the machine", "$faint")
        lines: list[Content] = []
        for gpu in sample.gpus:
            lines += self._gpu(gpu, width)
        if not sample.gpus:
            lines.append(
                self._line("CPU", sample.cpu / 100, f"{sample.cpu:3.0f} % of {sample.cpus}", "cpu", width, 100.0)
            )
            used = f"{size(sample.memory_used)} of {size(sample.memory_total)}"
            lines.append(
                self._line(
                    "RAM", sample.memory_used / max(1, sample.memory_total), used, "memory", width, sample.memory_total
                )
            )
            run = f"run: {size(sample.rss)}" if sample.rss else "no run"
            peak = f", peak {size(self.peak)}" if self.peak else ""
            lines.append(Content.styled(f"{run}{peak} · {sample.note or 'no GPU here'}", "$faint"))
        return Content("\n").join([line.truncate(width, ellipsis=True) for line in lines])

    def _gpu(self, gpu: Gpu, width: int) -> list[Content]:
        name = f"GPU{gpu.index}"
        busy = gpu.utilisation or 0.0
        more = [f"{gpu.temperature:.0f} °C"] if gpu.temperature is not None else []
        more += [f"{gpu.power:.0f} W"] if gpu.power is not None else []
        facts = " ".join([f"{busy:3.0f} %", *more])
        memory = f"{size(gpu.used)} of {size(gpu.total)}" + (f", peak {size(self.peak)}" if self.peak else "")
        return [
            self._line(name, busy / 100, facts, f"gpu{gpu.index}_utilisation", width, 100.0),
            self._line("VRAM", gpu.used / max(1, gpu.total), memory, f"gpu{gpu.index}_used", width, gpu.total),
        ]

    def _line(self, name: str, share: float, facts: str, ring: str, width: int, top: float) -> Content:
        graph = max(0, min(40, width - 5 - 11 - len(facts) - 3))
        colour = "$error" if share > 0.95 and name == "VRAM" else "$primary"
        history = sparkline(self.rings.get(ring, []), graph, top=top) if graph > 4 else ""
        return Content.assemble((f"{name:<5}", "bold"), (bar(share, 10), colour), f" {facts}  ", (history, "$series-2"))
