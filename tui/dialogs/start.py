"""Before a start: what would run, and why, for the target that is named."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, Protocol

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, Static

from hv15.records.checks import Check, CheckState
from hv15.records.paths import ProjectPaths
from hv15.terminal_text import visible
from tui.data.rerun import Rerun
from tui.widgets.plan_view import PlanView
from tui.workers import run_beside


class Plans(Protocol):
    """Finds out what would run: `tui.data.rerun.DryRun`, or a fake."""

    def run(self) -> Rerun: ...

    def cancel(self) -> None: ...


class Checks(Protocol):
    """Checks a project before its start: `tui.data.preflight.Preflight`, or a fake."""

    def run(self) -> tuple[Check, ...]: ...

    def cancel(self) -> None: ...


EVERYTHING = "everything that the config asks for"
"""What the empty field means."""
SIGNS: dict[CheckState, tuple[str, str]] = {
    "problem": ("✗", "$error"),
    "note": ("!", "$warning"),
    "ok": ("✓", "$success"),
}
"""In the order in which they are shown."""


class StartDialog(ModalScreen[list[str] | None]):
    """Returns the targets to start, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Cancel", id="start-cancel", tooltip="start nothing"),
        Binding("s,ctrl+s", "start", "Start", id="start-start", tooltip="start it: it continues without the dashboard"),
        Binding("d", "plan", "Ask again", id="start-plan", tooltip="ask Snakemake again what would run"),
    ]
    HELP = f"""What would run, and why. Start runs it, detached: it continues when the dashboard is closed. A part of it
    can be named as the target, such as samples, or {ProjectPaths().samples / "NAME.mp4"}."""

    DEFAULT_CSS = """
    StartDialog PlanView { height: 1fr; margin-top: 1; }
    StartDialog PlanView.-unknown { display: none; }
    StartDialog Input { width: 1fr; }
    StartDialog .target { height: 1; }
    StartDialog .target Label { color: $faint; padding-right: 1; }
    StartDialog VerticalScroll { height: auto; }
    StartDialog .checks { max-height: 40%; }
    StartDialog .summary { max-height: 30%; margin-top: 1; }
    StartDialog .summary.-alone { max-height: 1fr; }
    StartDialog VerticalScroll Static { height: auto; }
    """

    def __init__(
        self,
        plans: Callable[[list[str]], Plans],
        checks: Callable[[], Checks],
        *,
        notes: str = "",
        start: bool = True,
        target: str = "",
    ) -> None:
        super().__init__()
        self._target = target
        self._plans, self._checks, self._notes, self._start = plans, checks, notes, start
        self._running_plans: Plans | None = None
        self._running_checks: Checks | None = None
        self._refused = False
        """Whether the named targets cannot be started."""

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -tall -broad") as box:
            box.border_title = "Start" if self._start else "What would run"
            box.border_subtitle = "esc cancels"
            with Horizontal(classes="target"):
                yield Label("target")
                yield Input(self._target, placeholder=EVERYTHING, id="start-target", compact=True)
            with VerticalScroll(can_focus=False, classes="summary"):
                yield Static(id="plan-summary")
            with VerticalScroll(can_focus=False, classes="checks"):
                yield Static(id="plan-checks")
            yield PlanView(id="plan")
            with Horizontal(classes="dialog-answers"):
                if self._start:
                    yield Button(
                        Content.assemble("Start ", ("(s)", "dim")), id="start", variant="success", compact=True
                    )
                yield Button(Content.assemble("Cancel ", ("(esc)", "dim")), id="cancel", compact=True)

    def on_mount(self) -> None:
        (self.query_one("#start") if self._start else self.query_one(PlanView).table).focus()
        self.action_plan()
        run_beside(self, self._check, "plan-checks")

    def on_unmount(self) -> None:
        for running in (self._running_plans, self._running_checks):
            if running is not None:
                running.cancel()

    @property
    def targets(self) -> list[str]:
        """The targets in the field; none means everything."""
        text = self.query_one("#start-target", Input).value
        try:
            return shlex.split(text)
        except ValueError:
            return [text]

    @on(Input.Submitted)
    def action_plan(self) -> None:
        """Ask Snakemake what would run."""
        run_beside(self, partial(self._plan, self.targets), "plan", exclusive=True)

    async def _plan(self, targets: list[str]) -> None:
        plan = self.query_one(PlanView)
        plan.set_rows([])
        plan.table.empty = ""
        self._say(Content.styled("asking Snakemake what would run …", "$faint"))
        if self._running_plans is not None:
            self._running_plans.cancel()
        plans = self._running_plans = self._plans(targets)
        rerun = await asyncio.to_thread(plans.run)
        if plans is not self._running_plans or not self.is_attached or rerun.cancelled:
            return
        self._running_plans = None
        self._offer(not rerun.error)
        if rerun.error:
            self._say(Content.assemble(("✗ it cannot start: ", "bold $error"), rerun.error))
            return
        self._say(Content.styled(rerun.summary, "bold"))
        plan.set_rows(rerun.stages)

    def _offer(self, possible: bool) -> None:
        """Offer the start, or use its space to show why it is not possible."""
        self._refused = not possible
        self.query_one(PlanView).set_class(not possible, "-unknown")
        self.query_one(".summary").set_class(not possible, "-alone")
        for button in self.query("#start"):
            if not possible and button.has_focus:
                self.query_one("#cancel").focus()
            button.display = possible

    async def _check(self) -> None:
        """Check models, clips, captions, disk and device, while the plan is shown."""
        self._running_checks = self._checks()
        checks = await asyncio.to_thread(self._running_checks.run)
        if self.is_attached:
            lines = [_line(each) for each in most_important(checks)]
            self.query_one("#plan-checks", Static).update(Content("\n").join(lines))

    def _say(self, text: Content) -> None:
        notes = Content.styled(self._notes + "\n", "$warning") if self._notes else Content("")
        self.query_one("#plan-summary", Static).update(notes + text)

    @on(Button.Pressed, "#start")
    def action_start(self) -> None:
        """Start the named targets."""
        if self._start and not self._refused:
            self.dismiss(self.targets)

    @on(Button.Pressed, "#cancel")
    def action_cancel(self) -> None:
        """Start nothing."""
        self.dismiss(None)


def most_important(checks: Sequence[Check]) -> list[Check]:
    """Return the problems, then the notes; if there are none, the first check."""
    worst = sorted((each for each in checks if each.state != "ok"), key=lambda each: list(SIGNS).index(each.state))
    return worst or list(checks[:1])


def _line(check: Check) -> Content:
    sign, colour = SIGNS[check.state]
    return Content.assemble((f"{sign} ", colour), (f"{visible(check.subject)}: ", "bold"), visible(check.text))
