"""Memory and time before a start, stage by stage."""

from __future__ import annotations

from collections.abc import Hashable

from textual.content import Content

from tui.data.estimate import EstimateLine
from tui.units import duration, size
from tui.widgets.rows import Rows, cell


class EstimateView(Rows[EstimateLine]):
    """One line for each stage. The GPU needs the largest memory of them."""

    PART_NAME = "Estimate"
    HELP = """What each stage will need, found by running the real steps on the meta device: memory to the byte, time as
    an estimate. It follows the config while it is edited."""

    def key(self, row: EstimateLine) -> Hashable:
        return row.name

    def header(self, width: int) -> Content | None:
        return cell("stage", 24) + cell("memory", 11, right=True) + cell("time", 11, right=True)

    def draw(self, row: EstimateLine, width: int) -> Content:
        return Content("").join(
            [
                cell(row.name, 24),
                cell(size(row.memory) if row.memory is not None else "", 11, "bold", right=True),
                cell(duration(row.seconds), 11, right=True),
                cell("  " + row.note, max(0, width - 46), "$faint"),
            ]
        )
