"""The processes of the run, and other programs' on its GPUs."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from textual.content import Content

from tui.data.system import SystemSample
from tui.units import size
from tui.widgets.rows import Rows, cell


@dataclass(frozen=True)
class ProcessRow:
    """One process."""

    pid: int
    name: str
    memory: int | None
    """Bytes in the machine's memory."""
    cpu: float | None
    """Percent of one core."""
    gpu: int
    """Bytes on GPUs."""
    of_this_run: bool


def process_rows(sample: SystemSample) -> list[ProcessRow]:
    """Join a sample's processes with those on its GPUs; the largest first, the run's own above others."""
    on_gpu: dict[int, int] = {}
    foreign: set[int] = set()
    for gpu in sample.gpus:
        for process in gpu.processes:
            on_gpu[process.pid] = on_gpu.get(process.pid, 0) + process.used
            if not process.of_this_run:
                foreign.add(process.pid)
    rows = [
        ProcessRow(each.pid, each.name, each.rss, each.cpu, on_gpu.pop(each.pid, 0), True) for each in sample.processes
    ]
    rows += [
        ProcessRow(pid, "of another program", None, None, used, pid not in foreign) for pid, used in on_gpu.items()
    ]
    return sorted(rows, key=lambda row: (not row.of_this_run, -row.gpu, -(row.memory or 0)))


class ProcessTable(Rows[ProcessRow]):
    """One line for each process."""

    PART_NAME = "Processes"
    HELP = """The run's processes: memory, processor, and memory on GPUs. Below them other programs that use the same
    GPUs: they take memory that the training may need."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.empty = "no run here"

    def key(self, row: ProcessRow) -> Hashable:
        return row.pid

    def header(self, width: int) -> Content:
        return Content(f"  {'pid':>7}  {'memory':>9} {'CPU':>6} {'VRAM':>9}  name")

    def draw(self, row: ProcessRow, width: int) -> Content:
        return Content.assemble(
            ("  " if row.of_this_run else "! ", "bold $warning"),
            cell(str(row.pid), 7, right=True),
            cell(size(row.memory) if row.memory is not None else "", 11, right=True),
            cell(f"{row.cpu:.0f} %" if row.cpu is not None else "", 7, right=True),
            cell(size(row.gpu) if row.gpu else "", 10, right=True),
            "  ",
            cell(row.name, max(4, width - 39), "" if row.of_this_run else "$warning"),
        )
