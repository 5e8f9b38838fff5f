"""What a job asks a cluster for, from the plan of its stages: memory of the machine, and the most time it may take.

A cluster ends a job that exceeds either, so both have a margin. Memory of a GPU is not asked for: a job has whole GPUs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import get_args

from hv15.choices import PlannedJob
from hv15.config import Settings
from hv15.config.runtime import RuntimeSettings
from hv15.config.training.loss import LossSettings
from hv15.config.training.schedule import ScheduleSettings
from hv15.config.training.timesteps import TimestepSettings
from hv15.out_of_memory import StageName
from hv15.plan.devices import Device, detect_device, find_device
from hv15.plan.known_devices import find_rates
from hv15.plan.stage_plan import StagePlan
from hv15.plan.stages import StagePlanner
from hv15.project import Project
from hv15.records.estimate import Seconds
from hv15.records.json_values import JsonObject, as_object
from hv15.units import GIB

STAGES_OF: dict[PlannedJob, tuple[StageName, ...]] = {
    "encode_latents": ("encode latents",),
    "encode_texts": ("encode texts",),
    "encode_masks": (),
    "condition": ("condition",),
    "train": ("train",),
    "sample": ("denoise", "decode"),
    "decode": ("decode",),
    "upsample": ("upsample", "decode large"),
    "decode_large": ("decode large",),
    "convert": (),
}
"""The stages that a job does, one after the other; none where it computes with no model."""
ASSUMED_MINUTES: dict[PlannedJob, int] = {
    "encode_latents": 12 * 60,
    "encode_texts": 4 * 60,
    "encode_masks": 2 * 60,
    "condition": 60,
    "train": 24 * 60,
    "sample": 8 * 60,
    "decode": 60,
    "upsample": 8 * 60,
    "decode_large": 2 * 60,
    "convert": 30,
}
"""The limit of a job where nothing is known about the device's speed."""
GPU_PROCESS = 4 * GIB
"""Assumed: memory of the machine that a process with a GPU takes, with CUDA's libraries and pinned buffers."""
SMALL_PROCESS = 2 * GIB
"""Assumed: that of a process without a model, which reads a LoRA or masks."""
MEMORY_MARGIN = 1.25
TIME_MARGIN = 1.5
BESIDE_MINUTES = 10
"""Added to each limit: the node is slow at the start, the store is on a network."""
DECODED_AT_ONCE = 3
"""Clips in memory for each thread that decodes: as decoded, resized, and waiting."""
COSTS_NOTHING = frozenset(
    {
        *(*TimestepSettings.model_fields, *LossSettings.model_fields, *ScheduleSettings.model_fields),
        *("seed", "learning_rate", "loraplus_lr_ratio", "learning_rate_patterns", "network_alpha"),
    }
)
"""Settings of a training on which neither memory nor time depends, and in which experiments often differ."""
_MB = 1e6
UNKNOWN_GPU = Device("a GPU of unknown speed", 80 * GIB, None)


@dataclass(frozen=True)
class JobRequest:
    """What a kind of job asks for."""

    memory_mb: int
    """Of the machine, in 10^6 bytes."""
    assumed: int
    """Minutes that are asked for if its time is not known."""
    start: float | None = None
    """Seconds until its models are loaded."""
    each: float | None = None
    """Seconds for each sample, or for all that the job does if it makes no samples. At the worst rates."""

    def minutes(self, samples: int = 1) -> int:
        """Return the limit of a job, with the margin."""
        if self.start is None or self.each is None:
            return self.assumed
        return math.ceil(TIME_MARGIN * (self.start + self.each * samples) / 60) + BESIDE_MINUTES


def planned_device(runtime: RuntimeSettings) -> Device:
    """Return the device that jobs on other machines will have, with its measured rates if there are any.

    That is `runtime.planned_gpu`, or else this machine's. If a GPU is wanted and this machine has none, it is one of
    unknown speed: the machine from which jobs are submitted often has no GPU.

    Raises:
        UserError: `planned_gpu` is no known GPU.
    """
    if runtime.device != "cpu" and runtime.planned_gpu is not None:
        device = find_device(runtime.planned_gpu, "runtime.planned_gpu")
    else:
        device = detect_device(runtime.device if runtime.device == "cpu" else "auto")
        if runtime.device != "cpu" and not device.gpu:
            return UNKNOWN_GPU
    return replace(device, rates=find_rates(device)[0])


def settings_of_cost(settings: Settings) -> JsonObject:
    """Return the settings on which requests may depend. Runs that differ in others need not be planned again."""
    dumped = settings.dump()
    train = {name: value for name, value in as_object(dumped["train"]).items() if name not in COSTS_NOTHING}
    return {"train": train} | {name: dumped[name] for name in ("task", "models", "datasets", "cache", "sample")}


def job_requests(project: Project, device: Device) -> dict[PlannedJob, JobRequest]:
    """Return what each kind of job of a project asks for; it runs the steps of every stage without data.

    Raises:
        UserError: a dataset or a model cannot be used.
    """
    planner = StagePlanner(project, device)
    plans = {name: planner.stage(name) for name in planner.names}
    jobs: tuple[PlannedJob, ...] = get_args(PlannedJob)
    return {job: _request(job, planner, [plans[name] for name in STAGES_OF[job] if name in plans]) for job in jobs}


def _request(job: PlannedJob, planner: StagePlanner, plans: list[StagePlan]) -> JobRequest:
    memory = max((_memory(plan, planner) for plan in plans), default=SMALL_PROCESS)
    if job in ("encode_latents", "encode_masks"):
        memory += _decoded(planner)
    request = JobRequest(math.ceil(MEMORY_MARGIN * memory / _MB), ASSUMED_MINUTES[job])
    starts, units = [plan.loading for plan in plans], [_work(job, plan, planner) for plan in plans]
    if not plans or None in starts or None in units:
        return request
    return replace(request, start=_worst(starts), each=_worst(units))


def _worst(times: Iterable[Seconds | None]) -> float:
    return sum(each.most for each in times if each is not None)


def _memory(plan: StagePlan, planner: StagePlanner) -> int:
    """Bytes of the machine's memory for a stage, with all processes that it starts on one machine."""
    train = planner.project.settings.train
    machines = train.num_machines if plan.name == "train" else 1
    if not planner.device.gpu:
        return plan.needed // machines
    return plan.host + GPU_PROCESS * (plan.gpus // machines)


def _decoded(planner: StagePlanner) -> int:
    """Bytes of the clips that are decoded in advance."""
    batch, workers = planner.work.batch, planner.project.settings.cache.workers
    return DECODED_AT_ONCE * (workers + 1) * batch.frames * batch.height * batch.width * 3


def _work(job: PlannedJob, plan: StagePlan, planner: StagePlanner) -> Seconds | None:
    """The time of what one job does after loading; of a job that makes samples, that of the longest sample."""
    if plan.each is None:
        return None
    count, beside = plan.count, [time for time in (plan.validation, plan.previews) if time is not None]
    if job in ("encode_latents", "encode_texts"):
        count = math.ceil(plan.count / planner.project.settings.cache.shards)
    elif plan.name == "denoise":
        count = max(video.steps for video in planner.work.videos)
    elif plan.name == "upsample":
        count = max(video.steps for video in planner.work.enlarged)
    elif job in ("condition", "sample", "decode", "upsample", "decode_large"):
        count = 1
    least, most = (
        getattr(plan.each, end) * count + sum(getattr(time, end) for time in beside) for end in ("least", "most")
    )
    return Seconds(least, most, plan.each.basis)
