"""The experiments of a project: state, progress, lowest validation loss, and in what each differs."""

from __future__ import annotations

from collections.abc import Hashable

from textual.content import Content

from tui.data.experiments import ExperimentRow, ExperimentState
from tui.units import duration, number
from tui.widgets.rows import Rows, cell
from tui.widgets.states import colour_of, glyph

BEST = "★"
_SIGN, _STATE, _STEP, _LEFT, _LOSS = 4, 13, 12, 9, 11


class ExperimentsTable(Rows[ExperimentRow]):
    """One line for each experiment. A star marks the best one, a sign those whose curves are overlaid."""

    PART_NAME = "Experiments"
    HELP = """All experiments of the config, and those that were trained and are no longer in it. Space overlays the
    curves of one on Charts, enter opens the log of its training."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.taken: dict[str, str] = {}
        """Experiments whose curves are overlaid, and the sign of each."""
        self.empty = "the config has no experiments: name some in `experiments:`, or set a `sweep:`"

    def key(self, row: ExperimentRow) -> Hashable:
        return row.name

    def header(self, width: int) -> Content | None:
        name, rest = self._widths(width)
        parts = [
            cell("", _SIGN),
            cell("experiment", name),
            cell("state", _STATE),
            cell("steps", _STEP, right=True),
            cell("left", _LEFT, right=True),
            cell("validation", _LOSS, right=True),
        ]
        return Content("").join(parts) + cell("  what it changes", rest)

    def draw(self, row: ExperimentRow, width: int) -> Content:
        name, rest = self._widths(width)
        state = str(row.state)
        steps = f"{row.step}/{row.total}" if row.total else str(row.step or "")
        left = duration(row.eta_s) if row.state is ExperimentState.RUNNING else ""
        return Content("").join(
            [
                cell(f"{self.taken.get(row.name, ' '):<2}", 2, "bold $accent"),
                cell(BEST if row.is_best else "", _SIGN - 2, "bold $success"),
                cell(row.name, name, "bold" if row.is_best else ""),
                cell(f"{glyph(state)} {state}", _STATE, f"${colour_of(state)}"),
                cell(steps, _STEP, right=True),
                cell(left, _LEFT, right=True),
                cell(number(row.best.loss if row.best else None), _LOSS, right=True),
                cell(f"  {row.settings}", rest, "$faint"),
            ]
        )

    def _widths(self, width: int) -> tuple[int, int]:
        """The columns of the name, which is as long as the longest, and of what it changes."""
        free = max(0, width - _SIGN - _STATE - _STEP - _LEFT - _LOSS)
        longest = max((len(row.name) + 2 for row in self.rows), default=12)
        name = max(min(longest, 40, free * 2 // 3), min(free, 12))
        return name, free - name
