"""The report as a picture: time, share of the peak and memory of each step, measured and planned; by matplotlib."""

from __future__ import annotations

from pathlib import Path

from hv15.atomic import atomic_path
from hv15.records.selftest import SelftestReport
from hv15.selftest.checks import is_installed
from hv15.units import GIB


def draw(report: SelftestReport, path: Path) -> bool:
    """Draw the steps of a report into a PNG.

    Returns:
        Whether it was drawn: not without matplotlib, and not without a measured step.
    """
    rows = [row for row in report.rows if row.part == "full size" and row.measured.seconds is not None][::-1]
    if not rows or not is_installed("matplotlib"):
        return False
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 1.5 + 0.35 * len(rows)), layout="constrained")
    figure.suptitle(f"hv15 {report.hv15} on {report.device}: {report.sizes} sizes")
    seconds, share, memory = figure.subplots(1, 3, sharey=True)
    names, places = [row.name for row in rows], range(len(rows))
    kinds = list(dict.fromkeys(kind for row in rows for kind in row.measured.times))
    seconds.barh(places, [row.measured.seconds for row in rows], color="0.8", label="step")
    starts = [0.0] * len(rows)
    for kind in kinds:
        taken = [row.measured.times.get(kind, 0.0) for row in rows]
        seconds.barh(places, taken, left=starts, height=0.5, label=kind)
        starts = [start + each for start, each in zip(starts, taken, strict=True)]
    seconds.set_yticks(places, names)
    seconds.set_xlabel("seconds")
    seconds.legend(fontsize="small")
    share.barh(places, [100 * (row.measured.share or 0.0) for row in rows])
    share.set_xlabel("% of the peak (MFU)")
    memory.barh(places, [(row.measured.memory or 0) / GIB for row in rows], label="measured")
    memory.plot(
        [(row.measured.planned_memory or 0) / GIB for row in rows], places, "k|", markersize=12, label="planned"
    )
    memory.set_xlabel("GiB at the peak")
    memory.legend(fontsize="small")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    return True
