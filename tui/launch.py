"""How the dashboard is opened: on a project or on the demo, in this terminal or for a browser."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hv15.errors import UserError


def launch(project: Path, *, demo: bool = False, serve: bool = False, port: int = 0) -> int:
    """Open the dashboard and return its exit code.

    Raises:
        UserError: there is no such project; this is not a terminal; for the web view: its extra is missing, or the port
            is taken.
    """
    if serve:
        return _serve(project, demo, port)
    _refuse_pipes()
    from tui.signals import leave_at_once

    code = _open(project, demo)
    leave_at_once(code)
    return code


def _open(project: Path, demo: bool) -> int:
    from tui.app import main

    if not demo:
        return main(project)
    from tui.demo.project import demo_project, made_up_gpu

    with demo_project() as config:
        return main(config, gpus=made_up_gpu())


def _refuse_pipes() -> None:
    """Refuse to start without a terminal. In a browser, Textual's driver uses pipes, which is fine."""
    if "TEXTUAL_DRIVER" in os.environ:
        return
    streams = {"input": sys.stdin, "output": sys.stdout, "error output": sys.stderr}
    wrong = next((name for name, stream in streams.items() if stream is None or not stream.isatty()), None)
    if wrong is not None:
        raise UserError(
            f"the dashboard needs a terminal, but its {wrong} is not one",
            hint="start it without | < > and &; `hv15 status` prints what runs, `hv15 tui --serve` is for a browser",
        )


def _serve(project: Path, demo: bool, port: int) -> int:
    from hv15.runs.record import project_config
    from tui.serve import serve

    return serve(["--demo"] if demo else [str(project_config(project))], port)
