"""Arguments of the command that concerns the machine."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from hv15.arguments import Argument, Command, Entry
from hv15.precision import check_device_name


def _device(text: str) -> str:
    try:
        return check_device_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not minutes > 0:
        raise argparse.ArgumentTypeError(f"found '{text}', expected a number above 0")
    return minutes


@dataclass(frozen=True, kw_only=True)
class Selftest(Command):
    """Say what works on this machine, how fast, and whether the plan is true."""

    name: ClassVar[str] = "selftest"
    device: Annotated[str, Argument("cuda:0, cpu, ...", read=_device)] = "auto"
    minutes: Annotated[float, Argument("end after so many; the most telling checks come first", read=_minutes)] = 8.0
    full: Annotated[bool, Argument("all checks, however long they take")] = False
    out: Annotated[Path, Argument("folder of the report; one that is there is replaced")] = Path("report")
    report_only: Annotated[bool, Argument("do not keep the rates for `hv15 plan`")] = False
    compare: Annotated[
        tuple[Path, ...], Argument("only show two reports beside each other", metavar="REPORT", several="+")
    ] = ()
    markdown_row: Annotated[
        Path | None, Argument("only print a report as a line of docs/hardware.md's table", metavar="REPORT")
    ] = None

    def run(self) -> int:
        from hv15.commands.selftest import selftest

        return selftest(self)


MACHINE_COMMANDS: tuple[Entry, ...] = (Selftest,)
