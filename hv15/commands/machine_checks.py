"""What a project asks of the machine, before the first job: GPUs, other machines, packages. Loads no torch.

What is missing is a note, not a problem: the project may be checked on another machine than that of its jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hv15.errors import UserError
from hv15.gpus import check_gpus
from hv15.machines import this_machine
from hv15.project import Project
from hv15.records.checks import Check
from hv15.records.problems import Location, Place
from hv15.train.optimizer_packages import check_package


def machine_checks(project: Project) -> Iterator[Check]:
    """Yield a note for each thing that this machine lacks for the training and the samples."""
    settings = project.settings
    train, sample, device = settings.train, settings.sample, settings.runtime.device
    wanted: list[tuple[Location, Callable[[], object]]] = [
        (("train", "optimizer_type"), lambda: check_package(train.optimizer_type))
    ]
    if train.gpus_per_machine > 1:
        wanted.append(
            (("train", "num_processes"), lambda: check_gpus(device, train.gpus_per_machine, train.asks_for_gpus))
        )
    if train.num_machines > 1:
        wanted.append((("train", "num_machines"), lambda: this_machine(train.num_machines)))
    if sample.prompts and sample.context_parallel > 1:
        wanted.append(
            (
                ("sample", "context_parallel"),
                lambda: check_gpus(device, sample.context_parallel, sample.asks_for_gpus),
            )
        )
    for setting, check in wanted:
        try:
            check()
        except UserError as error:
            yield machine_note(str(setting[0]), error, setting)


def machine_note(section: str, error: UserError, setting: Location) -> Check:
    """Return the note of what a section of the settings cannot have on this machine."""
    return Check("note", section, f"on this machine: {error.message}", error.hint, Place(setting=setting))
