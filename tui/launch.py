"""How the dashboard is opened: on a project or on the demo, in this terminal or for a browser."""

from __future__ import annotations

from pathlib import Path


def launch(project: Path, *, demo: bool = False, serve: bool = False, port: int = 0) -> int:
    """Open the dashboard and return its exit code.

    Raises:
        UserError: there is no such project; of the web view: its extra is missing, or the port is taken.
    """
    if serve:
        return _serve(project, demo, port)
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
