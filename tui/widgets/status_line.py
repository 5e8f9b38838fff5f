"""The line on top of every screen: run, state, step, time left, GPU, disk, host."""

from __future__ import annotations

from dataclasses import dataclass

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from tui.widgets.states import state_text


@dataclass(frozen=True)
class Facts:
    """What the line says; "" for what is not known. Everything is plain text."""

    run: str = ""
    """The project, and the run in it."""
    state: str = "idle"
    step: str = ""
    """step 812/2000"""
    left: str = ""
    """The time that is left."""
    device: str = ""
    """GPU0 71/80 GiB 98 %, or CPU and RSS where there is no GPU"""
    disk: str = ""
    host: str = ""


class StatusLine(Widget):
    """One line; what does not fit is left out from its right side, the state never."""

    HELP = "What the project's run is doing now. It is read from the run's files and from the kernel's lock."

    DEFAULT_CSS = """
    StatusLine { height: 1; background: $panel; color: $foreground; padding: 0 1; }
    """

    facts: reactive[Facts] = reactive(Facts())

    def render(self) -> Content:
        facts, width = self.facts, self.content_size.width
        left = [Content.styled(facts.run or "hv15", "bold"), state_text(facts.state)]
        left += [Content(text) for text in (facts.step, facts.left) if text]
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
