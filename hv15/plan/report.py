"""A plan of all stages, for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from hv15.data.survey import counted
from hv15.plan.advice import Remedy, advise
from hv15.plan.devices import Device
from hv15.plan.stage_plan import StagePlan
from hv15.plan.stages import StagePlanner
from hv15.project import Project
from hv15.records.estimate import VERSION, Seconds
from hv15.records.json_values import JsonObject
from hv15.units import GIB, duration


@dataclass(frozen=True)
class ProjectPlan:
    """What a project would take on a device."""

    device: Device
    stages: tuple[StagePlan, ...]
    advice: tuple[Remedy, ...]
    note: str
    """Where sizes and numbers come from."""

    @property
    def fits(self) -> bool:
        return all(stage.fits for stage in self.stages)

    @property
    def needed(self) -> int:
        """Bytes of the largest stage; each stage is a process of its own."""
        return max(stage.needed for stage in self.stages)

    def to_json(self) -> JsonObject:
        """Return plain JSON values; `hv15.records.estimate` names those that other programs read."""
        return {
            "version": VERSION,
            "device": asdict(self.device),
            "fits": self.fits,
            "needed": self.needed,
            "stages": [_stage_json(stage) for stage in self.stages],
            "advice": [
                {
                    "stage": each.stage,
                    "changes": each.changes,
                    "needed": each.planned.needed if each.planned else None,
                    "text": str(each),
                }
                for each in self.advice
            ],
            "note": self.note,
        }

    def lines(self) -> Iterator[str]:
        """As a table with a verdict."""
        yield f"{self.device.name}: {self.device.memory / GIB:.1f} GiB"
        yield ""
        heading = "parts at the peak (GiB)"
        width = max(len(heading), *(len(_parts(stage)) for stage in self.stages))
        yield f"{'stage':15} {'needed':>9} {'':5} {heading:{width}}  time"
        for stage in self.stages:
            parts = _parts(stage)
            verdict, size = "" if stage.fits else " !", f"{stage.needed / GIB:5.1f} GiB"
            yield (f"{stage.name:15} {size}{verdict:5} {parts:{width}}  {_time(stage)}")
            if stage.gpus > 1:
                yield f"{'':31} on each of {stage.gpus} GPUs; the time leaves out what they exchange"
            if stage.host >= 0.05 * GIB:
                yield f"{'':31} and {stage.host / GIB:.1f} GiB of the machine's memory"
            if stage.disk >= 0.05 * GIB:
                yield f"{'':31} and meanwhile {stage.disk / GIB:.1f} GiB of the disk, for tiles that wait"
        yield ""
        if self.fits:
            yield f"It fits: the largest stage needs {self.needed / GIB:.1f} GiB."
        else:
            yield "It does not fit. The cheapest that helps:"
            yield from (f"  {each}" for each in self.advice)
        yield ""
        yield self.note
        yield f"Memory: the real steps, run on the meta device, and allowances for {self._allowances()}."
        yield "Time: from the best case to the worst, by counted arithmetic, memory traffic, kernels, copies and"
        yield "loading, at rates that are assumed or that `hv15 selftest` has measured here; see hv15's docs/memory.md."

    def _allowances(self) -> str:
        """What is added to the memory of tensors, and where each comes from."""
        if not self.device.gpu:
            return "the process (assumed)"
        rates = self.device.rates
        context, fragments = (
            "assumed" if rates is None or value is None else "measured here"
            for value in (rates and rates.context, rates and rates.fragments)
        )
        return f"the driver's context ({context}), the allocator ({fragments}) and workspaces (assumed)"


def make_plan(project: Project, device: Device, note: str = "") -> ProjectPlan:
    """Plan every stage of a project, and what to change where it does not fit.

    Args:
        note: what else is to be said about the plan.
    """
    planner = StagePlanner(project, device)
    stages = tuple(planner.stage(name) for name in planner.names)
    found = [advise(planner, stage.name) for stage in stages if not stage.fits]
    work = planner.work
    notes = [f"{work.steps} steps with {counted(work.clips, 'clip')} and {counted(work.texts, 'text')}", work.note]
    if len(work.parts) > 1:
        epochs = [
            f"{each.batches} in steps {each.span.start + 1} to {each.span.start + each.steps}" for each in work.parts
        ]
        notes.append(f"batches of an epoch: {', '.join(epochs)}")
    if planner.sizes.assumed:
        notes.append(f"missing or unreadable, so planned with the published sizes: {', '.join(planner.sizes.assumed)}")
    if note:
        notes.append(note)
    return ProjectPlan(device, stages, tuple(each for each in found if each is not None), "; ".join(notes))


def _stage_json(stage: StagePlan) -> JsonObject:
    """With the typical times beside the ranges."""
    times = {name: getattr(stage, name) for name in ("seconds", "load_seconds", "total_seconds")}
    return {**asdict(stage), **times, "total": asdict(stage.total) if stage.total else None}


def _parts(stage: StagePlan) -> str:
    parts = ", ".join(f"{name} {size / GIB:.2f}" for name, size in stage.parts.items() if size >= 0.005 * GIB)
    return parts if stage.peak else "on the CPU"


def _time(stage: StagePlan) -> str:
    if stage.each is None or stage.loading is None or stage.total is None:
        return f"{stage.count} x 1 {stage.unit}"
    times = f"{stage.loads} x " if stage.loads > 1 else ""
    parts = f"{span_text(stage.each)} a {stage.unit}, {times}{span_text(stage.loading)} to load"
    if stage.validation is not None:
        parts += f", {span_text(stage.validation)} for validations"
    if stage.previews is not None:
        parts += f", {span_text(stage.previews)} for previews"
    return f"{span_text(stage.total)} ({parts}), {stage.total.basis}"


def span_text(seconds: Seconds) -> str:
    """Return a range of time; its unit is said once."""
    least, most = duration(seconds.least), duration(seconds.most)
    if least == most:
        return most
    number, _, unit = least.rpartition(" ")
    return f"{number if most.endswith(f' {unit}') else least} to {most}"
