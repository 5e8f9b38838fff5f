"""What each job asks Snakemake's executor for: memory, time, threads.

Only an executor that sends jobs to other machines, or a limit such as `--resources mem_mb=64000`, makes use of memory
and time. Then they come from the plan of memory and time (`hv15.plan.job_requests`), which is computed once for a
config and remembered. Otherwise no job asks for them, and nothing is planned.

Snakemake calls each function of a rule for each of its jobs, which takes a tenth of a plan of 100 experiments. What is
the same for all jobs is known as soon as the executor is: then it stands in the place of the function.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, get_args

from hv15.choices import JobNeed, PlannedJob
from hv15.config import Settings
from hv15.digest import digest
from hv15.errors import UserError
from hv15.project import Project
from hv15.records.fields import from_json, to_json
from hv15.records.json_values import Json, RecordError, as_object
from hv15.records.stage_names import run_of_wildcards
from hv15.remembered import Memory
from hv15.workflow.known_parameters import with_known_parameters
from hv15.workflow.rule_names import stage_of_wildcards

if TYPE_CHECKING:
    from snakemake.io import Wildcards
    from snakemake.workflow import Workflow

    from hv15.plan.job_requests import JobRequest

VERSION = 1
"""Raised when what is planned changes."""
GPU_THREADS = 4
"""Threads of a job for each of its GPUs: for the program, the loading of data, and the driver."""
CPU_THREADS = 8
"""Threads of a job that computes on a CPU."""
_SMALL: tuple[PlannedJob, ...] = ("encode_masks", "convert")
"""Jobs that compute with no model."""

_DEFAULT_TMPDIR = "system_tmpdir"
"""The expression that Snakemake evaluates for each job's `tmpdir`, unless it is told another."""

Resource = Callable[["Wildcards"], int | None]
Asked = TypeVar("Asked", bound=Resource)


@dataclass(frozen=True)
class _SameForAll:
    """What a function gives for every job, if it does."""

    value: int | None
    is_so: Callable[[], bool]


class JobResources:
    """The resources of a project's jobs.

    Args:
        samples: returns how many samples a job makes, given its stage, such as `sample_shard.0`.
    """

    def __init__(self, project: Project, workflow: Workflow, samples: Callable[[str], int]) -> None:
        self._project, self._workflow, self._samples = project, workflow, samples
        self._requests: dict[str, dict[PlannedJob, JobRequest]] = {}
        """By run."""
        self._planned_by_key: dict[str, dict[PlannedJob, JobRequest]] = {}
        """By what it depends on, so that runs that need the same are planned once."""
        self._same_for_all: dict[Resource, _SameForAll] = {}
        """By function."""

    # -- functions whose answer is known ------------------------------------------------------------------------------

    def same_for_all(self, function: Asked, value: int | None, is_so: Callable[[], bool]) -> Asked:
        """Return a function of a rule, of which it is known what it gives for every job if something is so.

        Args:
            is_so: called once the executor is known.
        """
        self._same_for_all[function] = _SameForAll(value, is_so)
        return with_known_parameters(function)

    def settle(self) -> None:
        """Put what is the same for all jobs in the place of the rules' functions. The executor has to be known."""
        for rule in self._workflow.rules:
            for name, resource in [*rule.resources.items()]:
                evaluator = getattr(resource, "_evaluator", None)  # Snakemake wraps that of mem_mb
                known = self._same_for_all.get(inspect.unwrap(evaluator)) if evaluator is not None else None
                if known is not None and known.is_so():
                    rule.resources[name] = known.value
                elif not self._is_elsewhere and getattr(resource, "raw", None) == _DEFAULT_TMPDIR:
                    rule.resources[name] = tempfile.gettempdir()

    # -- resources ----------------------------------------------------------------------------------------------------

    def threads(self, job: PlannedJob) -> Callable[[Wildcards], int]:
        """Return the function for a rule's `threads`: 1 for each job on this machine, which so run side by side."""

        def number(wildcards: Wildcards) -> int:
            if not self._is_elsewhere:
                return 1
            return self._asked(job, "threads") or threads_of(job, self._run(wildcards).settings)

        return self.same_for_all(number, 1, lambda: not self._is_elsewhere)

    def resources(self, job: PlannedJob, stage: str) -> dict[str, Resource]:
        """Return the functions for a rule's `resources`; one that returns None asks for nothing.

        Args:
            stage: the rule's, with wildcards in braces.
        """

        def memory(wildcards: Wildcards) -> int | None:
            asked = self._asked(job, "mem_mb")
            return asked or (self._request(job, wildcards).memory_mb if self._counts("mem_mb") else None)

        def minutes(wildcards: Wildcards) -> int | None:
            if (asked := self._asked(job, "runtime")) is not None or not self._counts("runtime"):
                return asked
            samples = self._samples(stage_of_wildcards(stage, dict(wildcards.items())))
            return self._request(job, wildcards).minutes(samples)

        self.same_for_all(memory, None, lambda: self._asks_for_none(job, "mem_mb"))
        self.same_for_all(minutes, None, lambda: self._asks_for_none(job, "runtime"))
        # Snakemake calls the first mem_mb, too.
        return {"mem": memory, "runtime": minutes} | (self._of_machines() if job == "train" else {})

    def _asks_for_none(self, job: PlannedJob, need: JobNeed) -> bool:
        return self._asked(job, need) is None and not self._counts(need)

    def _of_machines(self) -> dict[str, Resource]:
        """The resources of a training on several machines: `hv15 train` starts itself on each (`hv15.machines`)."""
        device = self._project.settings.runtime.device

        def nodes(wildcards: Wildcards) -> int | None:
            machines = self._run(wildcards).settings.train.num_machines
            return machines if machines > 1 and self._is_elsewhere else None

        def tasks(wildcards: Wildcards) -> int | None:
            return nodes(wildcards) if device == "cpu" else None  # with GPUs it means tasks of a GPU

        for function in (nodes, tasks):
            self.same_for_all(function, None, lambda: not self._is_elsewhere)
        return {"nodes": nodes, "tasks": tasks}

    @property
    def _is_elsewhere(self) -> bool:
        """Whether the jobs run on other machines, one of which this may be."""
        return bool(self._workflow.non_local_exec or self._workflow.remote_exec)

    def _asked(self, job: PlannedJob, need: JobNeed) -> int | None:
        """What the config sets."""
        return self._project.settings.runtime.resources.get(job, {}).get(need)

    def _counts(self, resource: str) -> bool:
        """Whether anything makes use of a resource. A process that Snakemake starts for one job plans nothing."""
        workflow = self._workflow
        return workflow.is_main_process and (workflow.non_local_exec or resource in workflow.global_resources)

    def _run(self, wildcards: Wildcards) -> Project:
        """The base config, or the experiment that a job is for."""
        return self._project.experiment(run_of_wildcards(dict(wildcards.items())))

    def _request(self, job: PlannedJob, wildcards: Wildcards) -> JobRequest:
        from snakemake.exceptions import WorkflowError

        project = self._run(wildcards)
        try:
            if project.run not in self._requests:
                self._requests[project.run] = self._planned(project)
            return self._requests[project.run][job]
        except UserError as error:
            raise WorkflowError(str(error)) from None

    def _planned(self, project: Project) -> dict[PlannedJob, JobRequest]:
        """What is planned for each kind of job of a run.

        Raises:
            UserError: a dataset, a model or the GPU to plan for cannot be used.
        """
        from hv15.plan.job_requests import JobRequest, job_requests, planned_device, settings_of_cost
        from hv15.plan.workload import workload

        device = planned_device(project.settings.runtime)
        models: Json = {role: project.models.identity(role) for role in project.settings.roles}
        key = digest([settings_of_cost(project.settings), models, repr(workload(project)), repr(device)])
        if key not in self._planned_by_key:
            memory = Memory(project.paths.job_requests, VERSION, "it is planned again")
            try:
                known = as_object(memory.entries[key])
                found = {job: from_json(JobRequest, as_object(known[job])) for job in get_args(PlannedJob)}
            except (KeyError, RecordError):
                found = job_requests(project, device)
                memory.learn(key, {job: to_json(request) for job, request in found.items()})
            self._planned_by_key[key] = found
            memory.save(keep=self._planned_by_key.__contains__)
            if any(request.start is None for request in found.values()):
                _note_assumed_limits(device.name)
        return self._planned_by_key[key]


def threads_of(job: PlannedJob, settings: Settings) -> int:
    """Return the threads of a kind of job on another machine, with all processes that it starts there."""
    workers = settings.cache.workers
    if job in _SMALL:
        return 1 + (workers if job == "encode_masks" else 0)
    ranks = settings.sample.context_parallel
    processes = {"train": settings.train.gpus_per_machine, "sample": ranks, "upsample": ranks}.get(job, 1)
    if settings.runtime.device == "cpu":
        return CPU_THREADS * processes
    return max(GPU_THREADS * processes, workers + 2 if job == "encode_latents" else 0)


def _note_assumed_limits(device: str) -> None:
    from snakemake.logging import logger

    logger.info(
        f"The jobs' time limits are assumed, because nothing is known about the speed of {device}: set "
        "runtime.planned_gpu, or runtime.resources (docs/clusters.md)."
    )
