"""`hv15 plan`: will it fit, how long will it take, and what to change."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hv15.atomic import write_text
from hv15.commands.options.base import SettingsCommand
from hv15.commands.options.project import Plan
from hv15.errors import UserError
from hv15.out_of_memory import OutOfMemory
from hv15.project import Project
from hv15.records.json_values import RecordError
from hv15.terminal_text import json_text
from hv15.units import size

if TYPE_CHECKING:
    from hv15.plan.devices import Device


def plan(options: Plan) -> None:
    """Print or write the plan of a project.

    Raises:
        UserError: the config, the device or a dataset cannot be used, or the plan cannot be written.
    """
    from hv15.plan.experiments import plan_experiments
    from hv15.plan.report import make_plan
    from hv15.workflow import make_demo_clips

    project = Project(options.config, options.overrides, experiment=options.experiment)
    is_of_all = bool(project.experiments) and not (project.run or options.base)
    if is_of_all:
        project.check_experiments()
    make_demo_clips(project)
    device, note = _device(options, project)
    made = make_plan(project, device, note)
    all_of_them = plan_experiments(project, made) if is_of_all else None
    if options.json:
        content = made.to_json()
        text = json_text(content if all_of_them is None else {**content, "experiments": all_of_them.to_json()})
    else:
        text = "\n".join([*made.lines(), *([] if all_of_them is None else ["", *all_of_them.lines()])])
    if options.out is None:
        print(text)
        return
    write_text(options.out, text + "\n")


def _device(options: Plan, project: Project) -> tuple[Device, str]:
    """The device to plan for, with its measured rates, and a note on rates that cannot be used."""
    from hv15.plan.devices import detect_device, device_of_size, find_device, listed
    from hv15.plan.known_devices import find_rates, measured_device, read_rates

    device, note = None, ""
    if options.rates is not None:
        try:
            device = measured_device(read_rates(options.rates))
        except (OSError, RecordError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            raise UserError.at(
                options.rates,
                f"no rates of a device: {reason}",
                hint="give the rates.json or the selftest.json of `hv15 selftest`",
            ) from None
    sized = device_of_size(options.memory) if options.memory is not None else None
    if options.device is not None:
        asked = find_device(options.device)
        if device is not None and listed(device.name, device.memory) is not asked:
            raise UserError.at(
                options.rates,
                f"measured on {device.name}, but --device says {asked.name}",
                hint="leave out --device, or give the rates of that GPU",
            )
        device = device or asked
    elif device is None:
        planned = project.settings.runtime.planned_gpu
        device = sized or (
            find_device(planned, "runtime.planned_gpu")
            if planned is not None
            else detect_device(project.settings.runtime.device)
        )
    if device.rates is None:
        rates, note = find_rates(device)
        device = replace(device, rates=rates)
    if sized is not None:  # for a GPU that is shared, or a model of it with other memory
        device = replace(device, memory=sized.memory)
    return device, note


def explain(error: OutOfMemory, options: SettingsCommand) -> UserError:
    """Return the error with a hint that names the settings with which the stage fits on this device."""
    from hv15.plan.advice import advise
    from hv15.plan.devices import detect_device
    from hv15.plan.known_devices import find_rates
    from hv15.plan.stages import StagePlanner

    try:
        project = Project(options.config, options.overrides, experiment=options.experiment)
        device = detect_device(project.settings.runtime.device)
        device = replace(device, rates=find_rates(device)[0])
        planner = StagePlanner(project, device)
        stage = planner.stage(error.stage)
        # If the plan says that it fits, other programs use the device too: then anything smaller helps.
        found = advise(planner, stage.name, min(device.memory, int(stage.needed * 0.95)))
    except (UserError, RuntimeError, ValueError):  # the first error is the one to report
        return error
    needed = f"{size(stage.needed)} of {size(device.memory)}"
    return UserError(error.message, hint=f"the plan says {needed} are needed; {found}; what is saved is kept")
