"""The line at the top of every screen: run, state, step, time left, GPU, disk, host."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from tui.units import duration, percent, size
from tui.widgets.states import state_text

if TYPE_CHECKING:
    from tui.data.system import SystemSample
    from tui.project_files import JobsView, MetricsView, RunView


@dataclass(frozen=True)
class Facts:
    """The parts of the line; "" for an unknown one. Everything is plain text."""

    run: str = ""
    """The project, and the run in it."""
    state: str = "idle"
    jobs: str = ""
    """jobs 5/13"""
    step: str = ""
    """step 812/2000"""
    left: str = ""
    """The time that is left."""
    device: str = ""
    """GPU0 71/80 GiB 98 %, or CPU and RSS where there is no GPU"""
    disk: str = ""
    host: str = ""


LOW_DISK = 0.05
NAME = 20
"""Columns that the name of the project may take."""


class StatusLine(Widget):
    """One line; what does not fit is left out, from the right, but never the state."""

    PART_NAME = "Status line"
    HELP = "What the project's run is doing now. It is read from the run's files and from the kernel's lock."

    DEFAULT_CSS = """
    StatusLine { height: 1; background: $panel; color: $foreground; padding: 0 1; }
    """

    facts: reactive[Facts] = reactive(Facts())

    def show_run(self, project: str, view: RunView) -> None:
        """Show which run it is and what it does."""
        self.facts = replace(self.facts, run=project, state=view.state)

    def show_jobs(self, view: JobsView) -> None:
        """Show how much is left; the time of a kind of job is unknown until one of them has ended."""
        progress = view.progress
        left = duration(progress.eta_s) if progress.eta_s and not progress.ended else ""
        at_least = "≥" if progress.eta_is_least else ""
        jobs = f"jobs {progress.done}/{progress.total}" if progress.total else ""
        self.facts = replace(self.facts, jobs=jobs, left=f"ETA {at_least}{left}" if left else "")

    def show_training(self, view: MetricsView) -> None:
        """Show the step, once the run has begun its own training."""
        training = view.training
        total = f"/{training.total}" if training.total else ""
        begun = training.step and not training.former
        self.facts = replace(self.facts, step=f"step {training.step}{total}" if begun else "")

    def show_machine(self, sample: SystemSample, host: str) -> None:
        """Show how busy the device is."""
        if sample.gpus:
            gpu = max(sample.gpus, key=lambda each: each.used)
            busy = "" if gpu.utilisation is None else f" {gpu.utilisation:.0f} %"
            device = f"GPU{gpu.index} {size(gpu.used).split()[0]}/{size(gpu.total)}{busy}"
        else:
            device = f"CPU {sample.cpu:.0f} %" + (f" RSS {size(sample.rss)}" if sample.rss else " no GPU")
        free = sample.disk_free / sample.disk_total if sample.disk_total else 1.0
        low = "! " if free < LOW_DISK else ""
        self.facts = replace(
            self.facts, device=device, disk=f"{low}disk {size(sample.disk_free)} free ({percent(free)})", host=host
        )

    def render(self) -> Content:
        facts, width = self.facts, self.content_size.width
        name = Content(facts.run or "hv15").truncate(NAME, ellipsis=True)
        left = [name.stylize("bold"), state_text(facts.state)]
        left += [Content(text) for text in (facts.jobs, facts.step, facts.left) if text]
        right = [Content.styled(text, "$faint") for text in (facts.device, facts.disk, facts.host) if text]
        while right and _width(left) + _width(right) + 3 > width:
            right.pop()
        while len(left) > 2 and _width(left) + _width(right) > width:
            left.pop()
        separator = Content.styled(" · ", "$faint")
        first, last = separator.join(left), separator.join(right)
        if first.cell_length > width:
            return state_text(facts.state)
        return Content.assemble(first, " " * max(0, width - first.cell_length - last.cell_length), last)


def _width(parts: list[Content]) -> int:
    return sum(part.cell_length + 3 for part in parts)
