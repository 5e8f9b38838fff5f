"""How the dashboard is opened: on a project or on the demo, in this terminal or for a browser."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

PORT = 8765


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options that `hv15 tui` and `python -m tui` share."""
    parser.add_argument("--demo", action="store_true", help="show a recorded run instead of a project")
    parser.add_argument("--serve", action="store_true", help="for a browser on this machine, instead of the terminal")
    parser.add_argument("--port", type=int, help=f"for --serve; 0 takes a free one ({PORT})")


def launch(project: Path, *, demo: bool = False, serve: bool = False, port: int | None = None) -> int:
    """Open the dashboard and return its exit code.

    Raises:
        UserError: there is no such project; of the web view: its extra is missing, or the port is taken.
    """
    if serve:
        return _serve(project, demo, PORT if port is None else port)
    from tui.app import main

    if not demo:
        return main(project)
    from tui.demo.project import demo_project, made_up_gpu

    with demo_project() as config:
        return main(config, gpus=made_up_gpu())


def _serve(project: Path, demo: bool, port: int) -> int:
    from hv15.runs.record import project_config
    from tui.serve import serve

    return serve(["--demo"] if demo else [str(project_config(project))], port)


def from_words(words: Sequence[str] | None = None) -> int:
    """`python -m tui`."""
    parser = argparse.ArgumentParser("python -m tui", description="The dashboard of hv15.")
    parser.add_argument("project", type=Path, nargs="?", default=Path(), help="its folder or config file (here)")
    add_options(parser)
    options = parser.parse_args(words)
    return launch(options.project, demo=options.demo, serve=options.serve, port=options.port)
