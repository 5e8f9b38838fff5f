"""`hv15 selftest`: what works on this machine, how fast, and whether the plan is true."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path

from hv15.commands.options.machine import Selftest
from hv15.errors import INTERRUPTED, UserError
from hv15.gpus import take_gpu
from hv15.records.device_rates import DeviceRates
from hv15.records.json_values import RecordError
from hv15.records.selftest import Row, SelftestReport, read_report

FAILED = 1
"""Exit code when a check failed."""
NEEDED = ("torch", "pydantic", "safetensors", "einops", "numpy")
"""Packages without which nothing can be checked."""


def selftest(options: Selftest) -> int:
    """Run the self-test, or show reports that were made before.

    Raises:
        UserError: there is no such device, a package is missing, a report cannot be read, or the folder cannot be
            written.
    """
    from hv15.selftest.text_report import comparison, markdown_row

    if options.compare:
        if len(options.compare) != 2:
            found = len(options.compare)
            raise UserError(f"--compare: expected two reports, found {found}", hint="use --compare A.json B.json")
        print("\n".join(comparison(*map(_read, options.compare))))
        return 0
    if options.markdown_row is not None:
        print(markdown_row(_read(options.markdown_row)))
        return 0
    return _run(options)


def _run(options: Selftest) -> int:
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise UserError(
            f"the self-test needs {', '.join(missing)}: not installed", hint=f"pip install {' '.join(missing)}"
        )
    take_gpu(options.device)  # of several, a free one: beside another job, times would say nothing
    from hv15.selftest.picture import draw
    from hv15.selftest.run import PICTURE
    from hv15.selftest.run import selftest as run
    from hv15.selftest.text_report import row_lines, summary

    part = ""

    def tell(row: Row) -> None:
        nonlocal part
        lines = [*([] if row.part == part else ["", row.part]), *row_lines(row)]
        part = row.part
        print("\n".join(lines), flush=True)

    report = _read(run(options.device, math.inf if options.full else options.minutes, options.out, tell))
    drawn = draw(report, options.out / PICTURE)
    print("", summary(report), f"the report is in {options.out}", sep="\n")
    if not drawn:
        print("no picture: that needs a measured step and matplotlib (pip install matplotlib)")
    if not options.report_only and not report.rates.is_empty:
        _keep(report.rates)
    if not report.finished:
        return INTERRUPTED
    return FAILED if report.of("failed") else 0


def _keep(rates: DeviceRates) -> None:
    """Keep the rates for plans, and say so."""
    from hv15.plan.known_devices import store_rates

    try:
        print(f"`hv15 plan` uses the rates of this device from now on: {store_rates(rates)}")
    except UserError as error:  # the report is there all the same
        print(f"`hv15 plan` does not know of it: {error}")


def _read(path: Path) -> SelftestReport:
    try:
        return read_report(path)
    except RecordError as error:
        raise UserError.at(
            path, f"not a report of this hv15's self-test: {error}", hint="give the selftest.json of `hv15 selftest`"
        ) from None
