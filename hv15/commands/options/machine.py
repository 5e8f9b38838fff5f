"""Arguments of the command that concerns the machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from hv15.arguments import Argument, Command, Entry


@dataclass(frozen=True, kw_only=True)
class Selftest(Command):
    """Say what works on this machine, how fast, and whether the plan is true."""

    name: ClassVar[str] = "selftest"
    device: Annotated[str, Argument("cuda:0, cpu, ...")] = "auto"
    minutes: Annotated[float, Argument("end after so many; the most telling checks come first")] = 8.0
    full: Annotated[bool, Argument("all checks, however long they take")] = False
    out: Annotated[Path, Argument("folder of the report")] = Path("report")
    compare: Annotated[
        tuple[Path, ...], Argument("only show two reports beside each other", metavar="REPORT", several="+")
    ] = ()
    markdown_row: Annotated[
        Path | None, Argument("only print a report as a line of README's table of hardware", metavar="REPORT")
    ] = None

    def run(self) -> int:
        from hv15.commands.selftest import selftest

        return selftest(self)


MACHINE_COMMANDS: tuple[Entry, ...] = (Selftest,)
