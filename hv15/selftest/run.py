"""Runs the checks one after the other, most telling first, and writes the report after each."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import torch

from hv15 import __version__
from hv15.atomic import write_json, write_text
from hv15.precision import pick_device
from hv15.records.fields import now, to_json
from hv15.records.selftest import Row, SelftestReport
from hv15.selftest import encoders, numbers, steps
from hv15.selftest.checks import MachineCheck
from hv15.selftest.loop import loop_checks
from hv15.selftest.machine import machine_checks
from hv15.selftest.planned import PlannedCosts, PlannedWork
from hv15.selftest.sizes import FULL, TINY
from hv15.selftest.stand import Stand, machine_facts
from hv15.selftest.text_report import report_lines

log = logging.getLogger(__name__)

REPORT, RATES, TEXT, PICTURE = "selftest.json", "rates.json", "selftest.txt", "selftest.png"


def selftest(device_name: str, minutes: float, folder: Path, told: Callable[[Row], None] = lambda row: None) -> Path:
    """Run all checks and write the report into a folder; return the JSON file.

    Ctrl-C ends it with the report of what was checked until then.

    Args:
        device_name: the option `--device`: a name as for `runtime.device`.
        minutes: the time for all; infinite for no limit.
        told: called with each row as it comes.

    Raises:
        UserError: there is no such device, or the report cannot be written.
    """
    start = perf_counter()
    device = pick_device(device_name, option="--device")
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)
    full = device.type != "cpu"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PICTURE).unlink(missing_ok=True)  # of an earlier report
    report = None
    with TemporaryDirectory(prefix="checks.", dir=folder) as scratch, torch.random.fork_rng(devices=[]):
        stand = Stand(device, FULL if full else TINY, Path(scratch))
        stand.plans = PlannedCosts(planned_works(stand) if full else ())
        torch.manual_seed(0)
        try:
            for report in reports(stand, all_checks(stand), until=start + 60 * minutes):
                write_json(folder / REPORT, to_json(report))
                write_json(folder / RATES, to_json(report.rates))
                write_text(folder / TEXT, "\n".join(report_lines(report)) + "\n")
                if not report.finished and report.rows:
                    told(report.rows[-1])
        except KeyboardInterrupt:
            if report is None:
                raise
        finally:
            stand.plans.close()
    return folder / REPORT


def all_checks(stand: Stand) -> list[MachineCheck]:
    """All checks, in order."""
    return [
        *machine_checks(stand),
        *numbers.number_checks(stand),
        *encoders.number_checks(stand),
        *steps.main_checks(stand),
        *loop_checks(stand),
        *encoders.full_size_checks(stand),
        *steps.more_checks(stand),
        *numbers.slow_checks(stand),
    ]


def planned_works(stand: Stand) -> list[PlannedWork]:
    """What the planner is asked for, in the order of the checks."""
    return [*steps.main_works(stand), *encoders.planned_works(stand), *steps.more_works(stand)]


def reports(stand: Stand, checks: Iterable[MachineCheck], *, until: float = math.inf) -> Iterator[SelftestReport]:
    """Run checks; yield the report before the first, after each, and when all are done.

    Args:
        until: when to end, on the clock of `perf_counter`.
    """
    report = SelftestReport(
        hv15=__version__,
        made_at=now(),
        device=stand.rates.device,
        facts=machine_facts(stand.device),
        sizes=stand.sizes.name,
        rates=stand.rates,
    )
    yield report
    lost = ""
    for check in checks:
        row = check.left_out(lost) if lost else check.row(until - perf_counter())
        if lost:
            pass
        elif row.state not in ("failed", "left out"):
            stand.release()
        elif stand.answers():
            stand.drop()  # the check may have left the model half set up
        else:
            lost = f"since '{check.name}', nothing runs on the device in this process"
        report = replace(report, rows=(*report.rows, row), rates=stand.rates)
        yield report
    yield replace(report, finished=True)
