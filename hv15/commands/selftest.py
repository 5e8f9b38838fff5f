"""`hv15 selftest`: what works on this machine, how fast, and whether the plan is true."""

from __future__ import annotations

import math
from pathlib import Path

from hv15.atomic import write_text
from hv15.commands.options.machine import Selftest
from hv15.errors import UserError
from hv15.gpus import take_gpu
from hv15.precision import check_device_name
from hv15.records.json_values import RecordError
from hv15.records.selftest import Row, SelftestReport, read_report

FAILED = 1
"""Exit code when a check failed."""


def selftest(options: Selftest) -> int:
    """Run the self-test, or show reports that were made before.

    Raises:
        UserError: there is no such device, the minutes are no time, or a report cannot be read or written.
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
    if not options.minutes >= 0:
        raise UserError(f"--minutes {options.minutes:g}: expected 0 or more", hint="or use --full, which has no limit")
    check_device_name(options.device, option="--device")
    take_gpu(options.device)  # of several, a free one: beside another job, times would say nothing
    from hv15.plan.known_devices import store_rates
    from hv15.selftest.picture import draw
    from hv15.selftest.run import PICTURE, TEXT
    from hv15.selftest.run import selftest as run
    from hv15.selftest.text_report import report_lines, row_lines, summary

    def tell(row: Row) -> None:
        print("\n".join(row_lines(row)), flush=True)

    report = _read(run(options.device, math.inf if options.full else options.minutes, options.out, tell))
    write_text(options.out / TEXT, "\n".join(report_lines(report)) + "\n")
    drawn = draw(report, options.out / PICTURE)
    print(summary(report))
    print(
        f"the report is in {options.out}" + ("" if drawn else "; no picture: that needs matplotlib and a measured step")
    )
    try:
        print(f"`hv15 plan` uses the rates of this device from now on: {store_rates(report.rates)}")
    except UserError as error:  # the report is there all the same
        print(f"`hv15 plan` cannot use the rates of this device: {error}")
    return FAILED if report.of("failed") else 0


def _read(path: Path) -> SelftestReport:
    try:
        return read_report(path)
    except RecordError as error:
        raise UserError.at(
            path, f"not a report of this hv15's self-test: {error}", hint="give the selftest.json of `hv15 selftest`"
        ) from None
