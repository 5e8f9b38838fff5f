"""The plan of a config's experiments: what each needs that differs from the others, and the time of all together.

What they have in common is planned once: an experiment is planned again only if a setting or a size differs on which
memory or time depends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from hv15.digest import digest
from hv15.errors import UserError
from hv15.out_of_memory import StageName
from hv15.plan.devices import Device
from hv15.plan.job_requests import settings_of_cost
from hv15.plan.report import ProjectPlan, span_text
from hv15.plan.stage_plan import StagePlan
from hv15.plan.stages import StagePlanner
from hv15.plan.workload import workload
from hv15.project import Project
from hv15.records.estimate import Basis, Seconds
from hv15.records.json_values import JsonObject
from hv15.units import GIB

ENCODING: tuple[StageName, ...] = ("encode latents", "encode texts")
"""The stages that are made once for all experiments that need the same."""
TRAINING: StageName = "train"
_SHOWN = 3
"""The most names in a line."""


@dataclass(frozen=True)
class PlannedAlike:
    """Experiments that need the same memory and the same time."""

    names: tuple[str, ...]
    stages: tuple[StagePlan, ...]

    @property
    def needed(self) -> int:
        """Bytes of the largest stage."""
        return max((stage.needed for stage in self.own), default=0)

    @property
    def fits(self) -> bool:
        return all(stage.fits for stage in self.own)

    @property
    def own(self) -> tuple[StagePlan, ...]:
        """The stages that each of them has for itself."""
        return tuple(stage for stage in self.stages if stage.name not in ENCODING)

    @property
    def training(self) -> Seconds | None:
        """The time of the training; None if it is not known, or nothing is trained."""
        return total(stage.total for stage in self.own if stage.name == TRAINING)

    @property
    def samples(self) -> Seconds | None:
        """The time of all samples; None if it is not known, or there are none."""
        return total(stage.total for stage in self.own if stage.name != TRAINING)


@dataclass(frozen=True)
class ExperimentsPlan:
    """What the experiments of a config take."""

    alike: tuple[PlannedAlike, ...]
    """In the order of the config."""
    trainings: int
    """Different ones: experiments that train the same have one."""
    time: Seconds | None
    """Of everything that `snakemake experiments` makes, one after the other; None if it is not known."""

    @property
    def names(self) -> list[str]:
        return [name for each in self.alike for name in each.names]

    @property
    def fits(self) -> bool:
        return all(each.fits for each in self.alike)

    def to_json(self) -> JsonObject:
        """Return plain JSON values."""
        return {
            "alike": [
                {
                    "names": [*each.names],
                    "needed": each.needed,
                    "fits": each.fits,
                    "training": _seconds_json(each.training),
                    "samples": _seconds_json(each.samples),
                }
                for each in self.alike
            ],
            "trainings": self.trainings,
            "total": _seconds_json(self.time),
        }

    def lines(self) -> Iterator[str]:
        """As a table with a verdict."""
        count = len(self.names)
        yield f"{count} experiment{'s' * (count != 1)}, of which {self.trainings} different trainings:"
        rows = [("experiment", "needed", "training", "samples"), *map(_row, self.alike)]
        widths = [max(len(row[place]) for row in rows) for place in range(4)]
        for row in rows:
            yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        if not self.fits:
            unfit = [name for each in self.alike if not each.fits for name in each.names]
            yield f"Those marked with ! do not fit: `hv15 plan --experiment {unfit[0]}` says what to change."
        if self.time is not None:
            shown = f"{span_text(self.time)} on one device, {self.time.basis}"
            yield f"All of them: {shown}, with what is encoded for them."
            yield "Samples that are the same in several are counted in each, so it may be less."


def plan_experiments(base: Project, planned: ProjectPlan) -> ExperimentsPlan:
    """Plan every experiment of a config.

    Args:
        planned: the plan of the config itself, for the same device.

    Raises:
        UserError: the settings of an experiment are wrong, or a dataset cannot be used.
    """
    known: dict[str, tuple[StagePlan, ...]] = {_key(base): planned.stages}
    alike: dict[str, PlannedAlike] = {}
    times = list[Seconds | None]()
    trainings, encodings = set[str](), set[str]()
    for name in base.experiments:
        project = base.experiment(name)
        stages = _stages(project, planned.device, known)
        new = PlannedAlike((name,), stages)
        row = digest([*_row(new)[1:]])
        alike[row] = replace(alike[row], names=(*alike[row].names, name)) if row in alike else new
        training = _training(project)
        has_training = training in trainings
        trainings.add(training)
        times += [stage.total for stage in new.own if stage.name != TRAINING or not has_training]
        for stage in stages:
            if stage.name in ENCODING:
                encoding = _encoding(project, stage.name)
                times += [] if encoding in encodings else [stage.total]
                encodings.add(encoding)
    is_trained = any(base.experiment(name).settings.datasets for name in base.experiments)
    return ExperimentsPlan(tuple(alike.values()), len(trainings) if is_trained else 0, total(times))


def _stages(project: Project, device: Device, known: dict[str, tuple[StagePlan, ...]]) -> tuple[StagePlan, ...]:
    """The stages of an experiment, planned once for all that need the same."""
    key = _key(project)
    if key not in known:
        planner = StagePlanner(project, device)
        known[key] = tuple(planner.stage(name) for name in planner.names)
    return known[key]


def _key(project: Project) -> str:
    """What memory and time depend on."""
    return digest([settings_of_cost(project.settings), repr(workload(project))])


def _training(project: Project) -> str:
    """What is equal in experiments that train the same, of which one copies from the other."""
    try:
        return digest(project.training_spec)
    except UserError:  # a model is missing, whose content counts
        return project.run


def _encoding(project: Project, stage: StageName) -> str:
    """What is equal in experiments that read the same encoded items."""
    try:
        return str(id(project.latents if stage == ENCODING[0] else project.texts))  # one object for all that read them
    except UserError:
        settings = project.settings
        parts = (settings.cache, settings.models, *settings.datasets, *settings.sample.prompts)
        return digest([stage, *(part.model_dump(mode="json") for part in parts)])


def total(times: Iterable[Seconds | None]) -> Seconds | None:
    """Return the sum of times; None if there are none, or one is not known."""
    found = [*times]
    known = [each for each in found if each is not None]
    if not found or len(known) < len(found):
        return None
    return Seconds(
        sum(each.least for each in known),
        sum(each.most for each in known),
        Basis.joint(*(each.basis for each in known)),
    )


def _row(each: PlannedAlike) -> tuple[str, str, str, str]:
    needed = f"{each.needed / GIB:.1f} GiB{'' if each.fits else ' !'}"
    training = [stage for stage in each.own if stage.name == TRAINING]
    samples = [stage for stage in each.own if stage.name != TRAINING]
    return _listed(each.names), needed, _work(each.training, training), _work(each.samples, samples)


def _work(time: Seconds | None, stages: Sequence[StagePlan]) -> str:
    """How long stages take or, if that is not known, what they do."""
    return span_text(time) if time is not None else ", ".join(f"{each.count} {each.unit}s" for each in stages)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{', '.join(names[: _SHOWN - 1])} and {len(names) - _SHOWN + 1} more"


def _seconds_json(time: Seconds | None) -> JsonObject | None:
    return None if time is None else {"least": time.least, "most": time.most, "basis": str(time.basis)}
