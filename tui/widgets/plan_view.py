"""What would run, and below it, whole, the reasons that do not fit into a line."""

from __future__ import annotations

from collections.abc import Sequence

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from hv15.records.reasons import DueStage
from hv15.terminal_text import visible
from tui.widgets.plan_table import PlanTable, reasons_in_one_line
from tui.widgets.rows import Rows


class ReasonsView(VerticalScroll):
    """The reasons of one job, a paragraph each."""

    PART_NAME = "Reasons"
    HELP = "Why the job under the cursor would run, with all that does not fit into its line."

    def __init__(self) -> None:
        super().__init__()
        self._text = Static()

    def compose(self) -> ComposeResult:
        yield self._text

    def show(self, stage: DueStage | None) -> None:
        """Show the reasons of a job from their beginning."""
        self._text.update(_whole(stage) if stage is not None else "")
        self.scroll_home(animate=False)


class PlanView(Vertical):
    """A table of jobs. If the reasons of any are cut there, those of the job under the cursor stand below it.

    The cursor begins on the job with the longest reasons, because that is where something is offered.
    """

    DEFAULT_CSS = """
    PlanView { height: 1fr; }
    PlanView PlanTable { height: 1fr; min-height: 1; }
    PlanView ReasonsView {
        display: none; max-height: 60%; border-left: outer $border-blurred; padding-left: 1;
        background: transparent;
    }
    PlanView ReasonsView:focus { border-left: outer $primary; }
    PlanView ReasonsView Static { height: auto; }
    PlanView.-cut ReasonsView { display: block; }
    """

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.table, self._reasons = PlanTable(), ReasonsView()
        self._placed = False
        """Whether the cursor was put on the job with the longest reasons."""

    def compose(self) -> ComposeResult:
        yield self.table
        yield self._reasons

    def set_rows(self, stages: Sequence[DueStage]) -> None:
        """Show these jobs from now on."""
        self._placed = False
        self.table.set_rows(stages)
        if self.is_attached:
            self._fit()

    def on_resize(self) -> None:
        self._fit()

    @on(Rows.Moved)
    def _moved(self) -> None:
        self._reasons.show(self.table.current)

    def _fit(self) -> None:
        """Make room for the longest reasons, so that nothing moves when the cursor does."""
        width = self.size.width - 1  # beside the table's scrollbar
        cut = [stage for stage in self.table.rows if self.table.is_cut(stage, width)] if width > 0 else []
        self.set_class(bool(cut), "-cut")
        if cut:
            if not self._placed and not self.table.held:
                self.table.move_to_key(self.table.key(max(cut, key=lambda stage: len(reasons_in_one_line(stage)))))
            self._placed = True
            self._reasons.styles.height = max(len(_whole(stage).wrap(max(1, width - 2))) for stage in _unlike(cut))
        self._reasons.show(self.table.current)


def _whole(stage: DueStage) -> Content:
    return Content("\n").join(Content(visible(reason)) for reason in stage.reasons)


def _unlike(stages: Sequence[DueStage]) -> list[DueStage]:
    """One of all that have the same reasons."""
    return list({stage.reasons: stage for stage in stages}.values())
