"""The report as a picture: time, share of the peak and memory of each step, measured and planned; by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.figures import save_figure
from hv15.records.selftest import Row, SelftestReport
from hv15.selftest.breakdown import ATTENTION, COPIES, ELEMENTWISE, GAPS, PRODUCTS
from hv15.selftest.checks import is_installed
from hv15.units import GIB

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = {
    PRODUCTS: "tab:blue",
    ATTENTION: "tab:cyan",
    ELEMENTWISE: "tab:orange",
    COPIES: "tab:red",
    GAPS: "0.85",
}
"""Kind of work, as `hv15.selftest.breakdown` calls it -> colour."""
MEASURED, PLANNED = "tab:blue", "black"
UNKNOWN = float("nan")
"""Not drawn."""


def draw(report: SelftestReport, path: Path) -> bool:
    """Draw the steps of a report into a PNG.

    Returns:
        Whether it was drawn: not without matplotlib, and not without a measured step.
    """
    rows = [row for row in report.rows if row.part == "full size" and row.measured.seconds is not None]
    if not rows or not is_installed("matplotlib"):
        return False
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 2 + 0.32 * len(rows)), layout="constrained")
    figure.suptitle(f"hv15 {report.hv15} on {report.device}, torch {report.rates.torch}: {report.sizes} sizes")
    seconds, kinds, share, memory = figure.subplots(1, 4, sharey=True)
    seconds.set_yticks(range(len(rows)), [row.name for row in rows])
    seconds.set_ylim(len(rows) - 0.4, -0.6)  # the first on top
    _draw_seconds(seconds, rows)
    _draw_kinds(kinds, rows)
    _bars(share, [100 * row.measured.share if row.measured.share is not None else UNKNOWN for row in rows], "{:.0f}")
    share.set_xlabel("% of the device's peak (MFU)")
    _draw_memory(memory, rows)
    for panel in (seconds, kinds, share, memory):
        panel.tick_params(axis="y", length=0)
        panel.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)
    return True


def _draw_seconds(panel: Axes, rows: Sequence[Row]) -> None:
    """On a logarithmic axis, because the longest step takes a hundred times the shortest."""
    label = "planned, from best to worst"
    for place, row in enumerate(rows):
        planned = row.measured.planned_seconds
        if planned is not None:
            ends = [planned.least, planned.most]
            panel.plot(ends, [place, place], color="0.75", linewidth=5, solid_capstyle="butt", label=label)
            label = "_"  # one line in the legend is enough
    taken = [row.measured.seconds or UNKNOWN for row in rows]
    panel.plot(taken, range(len(rows)), "o", color=MEASURED, label="measured")
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter("{x:g}")
    panel.grid(axis="x", color="0.9")
    panel.set_axisbelow(True)
    panel.set_xlabel("seconds of a step")
    _legend_above(panel, 1)


def _draw_kinds(panel: Axes, rows: Sequence[Row]) -> None:
    """Where the time goes, of steps that ran under the profiler."""
    places, starts = range(len(rows)), [0.0] * len(rows)
    for kind, colour in KINDS.items():
        parts = [100 * row.measured.times.get(kind, 0.0) / (sum(row.measured.times.values()) or 1) for row in rows]
        panel.barh(places, parts, left=starts, color=colour, label=kind)
        starts = [start + part for start, part in zip(starts, parts, strict=True)]
    panel.set_xlim(0, 100)
    panel.set_xlabel("% of the time, where it was looked at")
    _legend_above(panel, 3)


def _draw_memory(panel: Axes, rows: Sequence[Row]) -> None:
    places = range(len(rows))
    _bars(panel, [row.measured.memory / GIB if row.measured.memory is not None else UNKNOWN for row in rows], "{:.3g}")
    planned = [each / GIB if (each := row.measured.planned_memory) is not None else UNKNOWN for row in rows]
    panel.plot(planned, places, "|", color=PLANNED, markersize=12, markeredgewidth=2, label="planned")
    panel.set_xlabel("GiB at the peak")
    _legend_above(panel, 2)


def _bars(panel: Axes, values: Sequence[float], number: str) -> None:
    """Bars with their numbers behind them; nothing for what is unknown."""
    bars = panel.barh(range(len(values)), values, color=MEASURED, label="measured")
    labels = ["" if value != value else number.format(value) for value in values]
    panel.bar_label(bars, labels, padding=6, fontsize="small")
    panel.margins(x=0.15)


def _legend_above(panel: Axes, columns: int) -> None:
    """Beside the bars there is no place that is free in every report."""
    panel.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, fontsize="small", frameon=False)
