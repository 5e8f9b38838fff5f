"""The report as text, two reports side by side, and the line of docs/hardware.md's table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from hv15.records.estimate import Seconds
from hv15.records.selftest import Measured, Row, SelftestReport
from hv15.units import GIB, KIB

MARKS = {"ok": "ok", "failed": "FAILED", "skipped": "skipped", "left out": "left out"}
_WIDTH = 50


def report_lines(report: SelftestReport) -> Iterator[str]:
    """The report as lines of text."""
    yield f"hv15 {report.hv15} on {report.device}, {report.rates.memory / GIB:.1f} GiB; {report.sizes} sizes"
    yield ", ".join(f"{name} {value}" for name, value in report.facts.items())
    yield summary(report)
    for part, rows in groupby(report.rows, key=lambda row: row.part):
        yield ""
        yield part
        for row in rows:
            yield from row_lines(row)


def summary(report: SelftestReport) -> str:
    """How many checks ended how, in one line."""
    counts = {mark: len(report.of(state)) for state, mark in MARKS.items()}  # type: ignore[arg-type]  # its keys
    words = ", ".join(f"{count} {mark}" for mark, count in counts.items() if count)
    seconds = sum(row.took for row in report.rows)
    return f"{words or 'nothing yet'} in {seconds:.0f} s" + ("" if report.finished else "; not finished")


def row_lines(row: Row) -> Iterator[str]:
    """One check, and below it where the time goes."""
    words = "; ".join(each for each in (row.message, *figures(row.measured), row.measured.note) if each)
    yield f"  {row.name:{_WIDTH}} {MARKS[row.state]:8} {words}".rstrip()
    if row.measured.times:
        whole = sum(row.measured.times.values())
        parts = sorted(row.measured.times.items(), key=lambda part: -part[1])
        yield f"  {'':{_WIDTH}} {'':8} " + ", ".join(f"{name} {100 * taken / whole:.0f} %" for name, taken in parts)


def figures(measured: Measured) -> list[str]:
    """What was measured, in words."""
    found = []
    if measured.rate is not None:
        found.append(f"{measured.rate:.4g} {measured.unit}")
    elif measured.seconds is not None:
        found.append(_with_planned(_seconds(measured.seconds), _range(measured.planned_seconds)))
    if measured.share is not None:
        found.append(f"{100 * measured.share:.0f} % of the peak")
    if measured.memory is not None:
        found.append(_with_planned(_size(measured.memory), _size(measured.planned_memory)))
    if measured.error is not None and measured.bound is not None:
        found.append("equal" if measured.error == 0 else f"error {measured.error:.1e}, allowed {measured.bound:.1e}")
    return found


def _with_planned(found: str, planned: str) -> str:
    return f"{found} (plan {planned})" if planned else found


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.3g} ms"


def _range(value: Seconds | None) -> str:
    return "" if value is None else f"{_seconds(value.least)} to {_seconds(value.most)}"


def _size(value: int | None) -> str:
    if value is None:
        return ""
    return f"{value / GIB:.2f} GiB" if value >= GIB / 10 else f"{value / KIB**2:.2f} MiB"


def comparison(first: SelftestReport, second: SelftestReport) -> list[str]:
    """Two reports row by row, with the ratio of the second to the first."""
    lines = [*(f"{name}: {_described(report)}" for name, report in (("A", first), ("B", second))), ""]
    rows = [("check", "A", "B", "B/A")]
    others = {(row.part, row.name): row for row in second.rows}
    for row in first.rows:
        rows += _compared(row, others.pop((row.part, row.name), None))
    for row in others.values():
        rows += _compared(None, row)
    return lines + list(_table(rows))


def _described(report: SelftestReport) -> str:
    sizes = f"{report.sizes} sizes"
    return f"{report.device}, hv15 {report.hv15}, torch {report.rates.torch}, {sizes}: {summary(report)}"


class _Figure(NamedTuple):
    value: float
    words: str


def _compared(one: Row | None, other: Row | None) -> Iterator[tuple[str, str, str, str]]:
    """Lines for a check, which is in at least one of two reports: a figure each, or else how it ended."""
    name = next(row.name for row in (one, other) if row is not None)
    ours, theirs = ({} if row is None else _figures(row.measured) for row in (one, other))
    labels = list(dict.fromkeys([*ours, *theirs]))
    for label in labels:
        a, b = ours.get(label), theirs.get(label)
        ratio = f"{b.value / a.value:.2f}" if a and b and a.value else ""
        yield f"{name}{label}", a.words if a else _ending(one), b.words if b else _ending(other), ratio
    if not labels:
        yield name, _ending(one), _ending(other), ""


def _figures(measured: Measured) -> dict[str, _Figure]:
    """What can be compared: what follows the check's name -> the figure. A rate stands for the seconds behind it."""
    found = {}
    if measured.rate is not None:
        found[""] = _Figure(measured.rate, f"{measured.rate:.3g} {measured.unit}".rstrip())
    elif measured.seconds is not None:
        found[""] = _Figure(measured.seconds, _seconds(measured.seconds))
    if measured.memory is not None:
        found[" memory"] = _Figure(measured.memory, _size(measured.memory))
    if measured.share is not None:
        found[" MFU"] = _Figure(measured.share, f"{100 * measured.share:.3g} %")
    return found


def _ending(row: Row | None) -> str:
    if row is None:
        return "-"
    error = row.measured.error
    return MARKS[row.state] if row.state != "ok" or error is None else ("equal" if error == 0 else f"error {error:.1e}")


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        first, *rest = row
        cells = [f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True)]
        yield "  ".join([f"{first:{widths[0]}}", *cells]).rstrip()


def markdown_row(report: SelftestReport) -> str:
    """The report as a line of docs/hardware.md's table."""
    steps = [row for row in report.rows if row.part == "full size" and row.measured.seconds is not None]
    shown = [_step(row) for row in _first_of(steps, ("training step", "guided sampling", "VAE decode"))]
    failed = [row.name for row in report.of("failed")]
    machine = f"{report.device}, {report.rates.memory / GIB:.0f} GiB, torch {report.rates.torch}"
    ended = summary(report) + (f" (failed: {'; '.join(failed)})" if failed else "")
    sizes = "tiny models: " if report.sizes == "tiny" else ""
    figures = f". {sizes}{', '.join(shown)}" if shown else ""
    return f"| {machine} | `hv15 selftest`: {ended}{figures} |"


def _first_of(rows: Iterable[Row], beginnings: Sequence[str]) -> list[Row]:
    found = [next((row for row in rows if row.name.startswith(each)), None) for each in beginnings]
    return [row for row in found if row is not None]


def _step(row: Row) -> str:
    measured = row.measured
    memory = f", {_size(measured.memory)}" if measured.memory is not None else ""
    return f"{row.name}: {_seconds(measured.seconds)}{memory}"
