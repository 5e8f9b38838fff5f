"""`hv15 plan`: will it fit, how long will it take, and what to change."""

from __future__ import annotations

import json
from argparse import Namespace

from hv15.atomic import atomic_path
from hv15.project import Project


def plan(options: Namespace) -> None:
    """Print or write the plan of a project."""
    from hv15.plan.devices import detect_device, device_of_size, find_device
    from hv15.plan.report import make_plan

    project = Project(options.config, options.overrides)
    if options.device:
        device = find_device(options.device)
    elif options.memory:
        device = device_of_size(options.memory)
    else:
        device = detect_device(project.settings.runtime.device)
    made = make_plan(project, device)
    text = json.dumps(made.to_json(), indent=1) if options.json else "\n".join(made.lines())
    if options.out is None:
        print(text)
        return
    with atomic_path(options.out) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
