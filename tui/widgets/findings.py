"""What follows from a config: problems, what will run again, memory and time, and what differs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from textual.containers import Vertical
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Static

from tui.config_session import ConfigView
from tui.data.config_diff import DiffLine
from tui.data.estimate import Estimate, Estimation
from tui.data.rerun import DryRun, Rerun
from tui.units import size
from tui.widgets.diff_view import DiffView
from tui.widgets.estimate_view import EstimateView
from tui.widgets.pages import Pages
from tui.widgets.plan_view import PlanView
from tui.widgets.problem_list import ProblemList
from tui.workers import run_beside

if TYPE_CHECKING:
    from tui.project_files import ProjectFiles

T = TypeVar("T")

ASKING_S = 1.5
"""This long after the last edit, hv15 is asked what will run, and how much memory it takes."""
PROBLEMS, RERUN, ESTIMATE, UNSAVED, AGAINST_RUN = range(5)


class Findings(Pages):
    """Five pages. Dry run and estimate are subprocesses; a newer text cancels those of an older one."""

    DEFAULT_CSS = """
    Findings #rerun-text, Findings #estimate-text { height: auto; max-height: 3; color: $faint; }
    """

    def __init__(self, files: ProjectFiles, *, id: str | None = None, classes: str | None = None) -> None:
        self._problems = ProblemList(id="problems")
        self._rerun, self._rerun_text = PlanView(id="rerun"), Static(id="rerun-text")
        self._estimate, self._estimate_text = EstimateView(id="estimate"), Static(id="estimate-text")
        self._unsaved, self._against = DiffView(id="unsaved"), DiffView(id="against")
        super().__init__(
            [
                ("Problems", self._problems),
                ("Reruns", Vertical(self._rerun_text, self._rerun, id="rerun-page")),
                ("Estimate", Vertical(self._estimate_text, self._estimate, id="estimate-page")),
                ("Unsaved", self._unsaved),
                ("Against run", self._against),
            ],
            id=id,
            classes=classes,
        )
        self._files = files
        self._view: ConfigView | None = None
        self._timer: Timer | None = None
        self._asked_text: str | None = None
        self._plans: DryRun | None = None
        self._estimation: Estimation | None = None
        self._problems.empty = "✓ nothing is wrong"
        self._unsaved.empty = "everything is saved"
        self._against.empty = "no run to compare with, or nothing differs"
        self._rerun.table.empty = self._estimate.empty = ""

    def show(self, view: ConfigView) -> None:
        """Show at once what is known of a text, and find out the rest if no other text follows soon."""
        before, self._view = self._view, view
        self._problems.set_rows(view.problems)
        self._unsaved.set_rows(view.unsaved)
        self._against.set_rows(view.against_run)
        self.say(PROBLEMS, f"✗ {len(view.problems)}" if view.problems else "✓")
        self.say(UNSAVED, _counts(view.unsaved) if view.dirty else "")
        self.say(AGAINST_RUN, str(len(view.changes_against_run)) if view.changes_against_run else "")
        if before is None or before.text != view.text:
            self.ask_later()

    def ask_later(self, *, again: bool = False) -> None:
        """Ask in a moment. With `again`, also for the same text, because a run has changed the project."""
        if again:
            self._asked_text = None
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(ASKING_S, self._ask)

    def _ask(self) -> None:
        view = self._view
        if view is None or view.text == self._asked_text:
            return
        self._asked_text = view.text
        self._cancel()
        if view.problems:
            for number, text in ((RERUN, self._rerun_text), (ESTIMATE, self._estimate_text)):
                text.update("correct the problems first")
                self.say(number, "?")
            self._rerun.set_rows(())
            self._estimate.set_rows(())
            return
        self.say(RERUN, "…")
        self.say(ESTIMATE, "…")
        text_now = view.text if view.dirty else None
        self._plans, self._estimation = self._files.dry_run(text_now), self._files.estimation(text_now)
        run_beside(self, self._forecast, "forecast", exclusive=True)

    async def _forecast(self) -> None:
        """Ask one question after the other: the machine may be busy training."""
        plans, estimation = self._plans, self._estimation
        if plans is None or estimation is None:
            return
        rerun = await _in_thread(plans.run)
        if plans is self._plans and self.is_attached:
            self._show_rerun(rerun)
            estimate = await _in_thread(estimation.run)
            if estimation is self._estimation and self.is_attached:
                self._show_estimate(estimate)

    def _show_rerun(self, rerun: Rerun | Exception) -> None:
        if isinstance(rerun, Exception) or rerun.error:
            self.say(RERUN, "✗")
            words = str(rerun) if isinstance(rerun, Exception) else rerun.error
            self._rerun_text.update(Content.styled(words, "$error"))
            self._rerun.set_rows(())
        elif not rerun.cancelled:
            self.say(RERUN, str(len(rerun.stages)))
            self._rerun_text.update(Content(rerun.summary))
            self._rerun.set_rows(rerun.stages)

    def _show_estimate(self, estimate: Estimate | Exception) -> None:
        if isinstance(estimate, Exception) or estimate.error:
            self.say(ESTIMATE, "✗")
            words = str(estimate) if isinstance(estimate, Exception) else estimate.error
            self._estimate_text.update(Content.styled(words, "$error"))
            self._estimate.set_rows(())
        else:
            self.say(ESTIMATE, size(estimate.peak) if estimate.peak else "")
            self._estimate_text.update(Content(" · ".join(estimate.notes)))
            self._estimate.set_rows(estimate.lines)

    def _cancel(self) -> None:
        for running in (self._plans, self._estimation):
            if running is not None:
                running.cancel()

    def on_unmount(self) -> None:
        self._cancel()


async def _in_thread(function: Callable[[], T]) -> T | Exception:
    """Call in a thread; an error is the result, to be shown."""
    try:
        return await asyncio.to_thread(function)
    except Exception as error:
        return error


def _counts(lines: tuple[DiffLine, ...]) -> str:
    more, less = sum(line.sign == "+" for line in lines), sum(line.sign == "-" for line in lines)
    return f"+{more} -{less}"
