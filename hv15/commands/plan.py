"""`hv15 plan`: will it fit, how long will it take, and what to change."""

from __future__ import annotations

from dataclasses import replace

from hv15.atomic import write_text
from hv15.commands.options.base import SettingsCommand
from hv15.commands.options.project import Plan
from hv15.errors import UserError
from hv15.out_of_memory import OutOfMemory
from hv15.project import Project
from hv15.terminal_text import json_text
from hv15.units import size


def plan(options: Plan) -> None:
    """Print or write the plan of a project.

    Raises:
        UserError: the config, the device or a dataset cannot be used, or the plan cannot be written.
    """
    from hv15.plan.devices import detect_device, device_of_size, find_device
    from hv15.plan.report import make_plan
    from hv15.workflow import make_demo_clips

    project = Project(options.config, options.overrides)
    make_demo_clips(project)
    sized = device_of_size(options.memory) if options.memory is not None else None
    if options.device is not None:
        device = find_device(options.device)
        if sized is not None:  # for a GPU that is shared, or a model of it with other memory
            device = replace(device, memory=sized.memory)
    elif sized is not None:
        device = sized
    else:
        device = detect_device(project.settings.runtime.device)
    made = make_plan(project, device)
    text = json_text(made.to_json()) if options.json else "\n".join(made.lines())
    if options.out is None:
        print(text)
        return
    write_text(options.out, text + "\n")


def explain(error: OutOfMemory, options: SettingsCommand) -> UserError:
    """Return the error with a hint that names the settings with which the stage fits on this device."""
    from hv15.plan.advice import advise
    from hv15.plan.devices import detect_device
    from hv15.plan.stages import StagePlanner

    try:
        project = Project(options.config, options.overrides)
        device = detect_device(project.settings.runtime.device)
        planner = StagePlanner(project, device)
        stage = planner.stage(error.stage)
        # If the plan says that it fits, other programs use the device too: then anything smaller helps.
        found = advise(planner, stage.name, min(device.memory, int(stage.needed * 0.95)))
    except (UserError, RuntimeError, ValueError):  # the first error is the one to report
        return error
    needed = f"{size(stage.needed)} of {size(device.memory)}"
    return UserError(error.message, hint=f"the plan says {needed} are needed; {found}; what is saved is kept")
