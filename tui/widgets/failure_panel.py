"""What went wrong: the cause in one sentence, what to do, and the last lines of the log."""

from __future__ import annotations

from textual import events
from textual.binding import Binding
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from tui.data.failures import FailureCard
from tui.messages import OpenLog


class FailurePanel(Widget, can_focus=True):
    """One card; left and right show the others."""

    PART_NAME = "Failure"
    HELP = """What went wrong, as far as it is known: the cause, the cure, and the end of the log. Enter opens the log;
    left and right show the other failures. After the cure, s starts again: what is finished is kept."""

    DEFAULT_CSS = """
    FailurePanel { height: auto; max-height: 12; display: none; }
    FailurePanel.-shown { display: block; }
    """

    BINDINGS = [  # noqa: RUF012 (as Textual declares it)
        Binding("enter", "open", "Open log", id="failure-open", tooltip="open the log of this failure"),
        Binding("left", "turn(-1)", "Previous", id="failure-previous", show=False, tooltip="the failure before"),
        Binding("right", "turn(1)", "Next", id="failure-next", show=False, tooltip="the next failure"),
    ]

    cards: reactive[tuple[FailureCard, ...]] = reactive((), layout=True)
    index: reactive[int] = reactive(0, layout=True)
    tail_lines = 4

    def watch_cards(self) -> None:
        self.index = min(self.index, max(0, len(self.cards) - 1))
        self.set_class(bool(self.cards), "-shown")
        self._entitle()

    def watch_index(self) -> None:
        self._entitle()

    def _entitle(self) -> None:
        if self.cards:
            card = self.cards[self.index]
            number = f" ({self.index + 1} of {len(self.cards)})" if len(self.cards) > 1 else ""
            self.border_title = Content(f"✗ {card.title}{number}")
            self.border_subtitle = Content(str(card.log) if card.log else "")

    def render(self) -> Content:
        if not self.cards:
            return Content("")
        card = self.cards[self.index]
        parts = [Content.styled(str(card.failure), "bold $error")]
        if card.failure.cure:
            parts.append(Content.assemble(("what to do: ", "$success"), card.failure.cure))
        width = max(10, self.content_size.width or 80)
        parts += [
            Content.styled(line, "$faint").truncate(width, ellipsis=True) for line in card.tail[-self.tail_lines :]
        ]
        return Content("\n").join(parts)

    def action_open(self) -> None:
        log = self.cards[self.index].log if self.cards else None
        if log is not None:
            self.post_message(OpenLog(log))

    def action_turn(self, count: int) -> None:
        if self.cards:
            self.index = (self.index + count) % len(self.cards)

    def on_click(self, event: events.Click) -> None:
        if event.chain == 2:
            self.action_open()
