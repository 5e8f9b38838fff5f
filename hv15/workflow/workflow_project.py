"""A project as the rules see it: their inputs, their messages, and what their jobs ask for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from hv15.cache.register import register
from hv15.choices import PlannedJob, TransformerSection
from hv15.collection import paused_collection
from hv15.errors import UserError
from hv15.gpus import gpu_jobs
from hv15.plan.beforehand import refuse_beforehand
from hv15.project import Project
from hv15.records.json_values import RecordError
from hv15.records.paths import ProjectPaths
from hv15.records.rules import Rule, TargetRule
from hv15.records.spec import Spec
from hv15.records.stage_names import rule_of, run_of, run_of_folder, run_of_wildcards, stage_of_run, within_run
from hv15.records.twins import TWIN, twin_files
from hv15.runs.control import note_on_lock, refuse_living_run, refuse_orphans
from hv15.workflow.asked import are_of_checkpoints, asked_runs, compares_experiments, no_experiments, stages_of
from hv15.workflow.command_line import FROM
from hv15.workflow.demo_clips import make_demo_clips
from hv15.workflow.job_resources import JobResources, Resource
from hv15.workflow.known_parameters import with_known_parameters
from hv15.workflow.needless_work import spare_needless_work
from hv15.workflow.parallel_jobs import sampling_jobs
from hv15.workflow.planner import Planner
from hv15.workflow.refusals import end_with
from hv15.workflow.rule_names import Formatter, RuleNames, stage_of_wildcards
from hv15.workflow.shards import SHARDS
from hv15.workflow.stage import Stage
from hv15.workflow.why import Reasons

if TYPE_CHECKING:
    from snakemake.io import Wildcards
    from snakemake.workflow import Workflow

Inputs = Callable[["Wildcards"], dict[str, list[str]]]


class WorkflowProject(RuleNames):
    """A project as the rules see it."""

    def __init__(self, project: Project, workflow: Workflow, reproduced: str = "") -> None:
        super().__init__(project)
        self._reproduced = reproduced
        self._workflow = workflow
        self.refused: Callable[[UserError], None] | None = None
        """Notes for the record of the run why nothing could be planned."""
        self.container: Callable[[Wildcards], str] | None = None
        """The image in which the jobs run, if `--sdm apptainer` asks for containers."""

    def check(self) -> None:
        """Check everything that can be checked before the jobs are planned. Only the main process does this.

        Raises:
            UserError: model files are missing, or else datasets, images and LoRAs; all of a kind at once.
        """
        project = self.project
        project.models.check()  # alone: without the files, all that follows would fail for the same reason
        make_demo_clips(project)
        said: list[str] = []
        checks: tuple[Callable[[], object], ...] = (
            lambda: project.dataset.sources,
            lambda: project.samples,
            lambda: project.enlarged,
            lambda: project.training_spec if project.settings.datasets else None,
            lambda: refuse_beforehand(project, missing=False),  # missing files are reported by the others
        )
        for check in checks:
            try:
                check()
            except UserError as error:
                if str(error) not in said:
                    said.append(str(error))
        if said:
            first, *others = "\n".join(said).split("\n")
            raise UserError(first, lines=others)
        register(project.cache, project.root)
        if not self.has_experiments:
            _ = self._stages

    @cached_property
    def _stages(self) -> list[Stage]:
        return stages_of([self.project])

    @cached_property
    def _planner(self) -> Planner:
        """Made when Snakemake asks for the first input.

        Only then does it know its targets, whether this is a dry run, and whether the jobs run on this machine. If they
        do, as many use a GPU at once as there are GPUs, unless `--resources gpu=N` says otherwise.
        """
        workflow, settings = self._workflow, self._workflow.dag_settings
        if workflow.is_main_process and not workflow.dryrun:
            refuse_living_run(self.project.root)
            refuse_orphans(self.project.root)
            if note := note_on_lock(self.project.root):
                from snakemake.logging import logger

                logger.warning(note)
        if not workflow.non_local_exec and "gpu" not in workflow.global_resources:
            workflow.register_resource("gpu", gpu_jobs(self.project.settings.runtime.device))
        targets = tuple(map(str, settings.targets)) if settings is not None else ()
        targets = targets or (TargetRule.ALL,)
        of_checkpoints = are_of_checkpoints(targets) or not workflow.is_main_process  # a job has other targets
        if of_checkpoints or self.has_experiments:
            with paused_collection():
                runs = asked_runs(self.project, targets) if workflow.is_main_process else self._runs_of_jobs
                compares = compares_experiments(self.project, targets)
                stages = stages_of(runs, targets, of_checkpoints=of_checkpoints, compares=compares)
        else:
            stages = self._stages
        devices = sampling_jobs(workflow, self.project.settings) if workflow.is_main_process else 0
        planner = Planner(self.shared, stages, targets=targets, dry_run=bool(workflow.dryrun), devices=devices)
        if workflow.is_main_process:
            planner.prepare()
            self._job_resources.settle()
            spare_needless_work(workflow)
        return planner

    @property
    def _runs_of_jobs(self) -> list[Project]:
        """The base config, and the experiment that this process's job is for; Snakemake names it no targets."""
        settings = self._workflow.dag_settings
        jobs = settings.target_jobs if settings is not None else ()
        asked = {run_of_wildcards(job.wildcards_dict) for job in jobs}
        return [self.project.experiment(name) for name in ("", *self.project.experiments) if not name or name in asked]

    # -- inputs and words -------------------------------------------------------------------------------------------

    def inputs(self, name: str) -> Inputs:
        """The input function of a rule; `name` is its stage, with the wildcard in braces: `sample_video.{name}`."""

        def input_files(wildcards: Wildcards) -> dict[str, list[str]]:
            from snakemake.io import ancient

            stage = stage_of_wildcards(name, dict(wildcards.items()))
            if not self._workflow.is_main_process and (known := self._known_inputs(stage)):
                return known
            try:
                named, plain = self._planner.inputs(stage)
            except UserError as error:
                end_with(self._workflow, error, self.refused)
            # A process that Snakemake starts for one job reads the Snakefile too, but decides nothing.
            if plain or not self._workflow.is_main_process:
                return named
            return {key: [ancient(file) for file in files] for key, files in named.items()}

        return with_known_parameters(input_files)

    def all_experiments(self, wildcards: Wildcards) -> list[str]:
        if not self.has_experiments:
            end_with(self._workflow, no_experiments(), self.refused)
        return super().all_experiments(wildcards)

    @property
    def lora_to_reproduce(self) -> str:
        """The LoRA that `--config from=FILE` names.

        Raises:
            snakemake.exceptions.WorkflowError: it names none.
        """
        from snakemake.exceptions import WorkflowError

        if not self._reproduced:
            error = UserError("reproduce: which LoRA?", hint=f"snakemake reproduce --config {FROM}=FILE")
            raise WorkflowError(str(error))
        return self._reproduced

    def _known_inputs(self, stage: str) -> dict[str, list[str]]:
        """The inputs of a job whose spec says all that it has to know; none if it does not."""
        path = ProjectPaths(run=run_of(stage)).spec(within_run(stage))
        named = {"spec": [str(path)]}
        if rule_of(stage) in SHARDS:
            return named
        try:
            twin = twin_files(Spec.load(path).details)
        except RecordError:
            return {}
        return named | {TWIN: [*map(str, twin)]} if twin else {}

    def reason(self, stage: str) -> str:
        """Why a job runs, in words; "" if it is not a stage."""
        if stage == Rule.REPRODUCE:
            return "it was asked for"
        return self._reasons.sentence(stage)

    @cached_property
    def why(self) -> Formatter:
        """The reasons of each stage, for its message. (In a param, a change of them would be a reason to run.)"""

        def sentence(words: str) -> str:
            folder, _, stage = words.rpartition(":")
            name = stage_of_run(run_of_folder(folder), stage)
            return self._reasons.sentence(name) or "Snakemake's options ask for it"

        return Formatter(sentence if self._workflow.is_main_process else lambda name: "")

    @cached_property
    def _reasons(self) -> Reasons:
        return Reasons(self.project, self._planner)

    # -- resources --------------------------------------------------------------------------------------------------

    @property
    def gpu(self) -> int:
        """GPUs of a job with a model; none on the CPU, so that such jobs run side by side."""
        return int(self.project.settings.runtime.device != "cpu")

    def gpu_of(self, stage: str) -> Callable[[Wildcards], int]:
        """The GPU of a sample's job; none where it only takes what the job of a shard has made."""

        def number(wildcards: Wildcards) -> int:
            return 0 if self._only_takes(stage, wildcards) else self.gpu

        return self._job_resources.same_for_all(number, 0, lambda: not self.gpu)

    def _only_takes(self, stage: str, wildcards: Wildcards) -> bool:
        """Whether a job here takes or copies what is made. Another machine is asked for a GPU, in case that is lost."""
        here = self._workflow.is_main_process and not self._workflow.non_local_exec
        name = stage_of_wildcards(stage, dict(wildcards.items()))
        return here and (name in self._planner.shard_of or self._planner.is_copied(name))

    def gpus(self, section: TransformerSection, stage: str = "") -> Callable[[Wildcards], int]:
        """The GPUs of a job that may use several (`num_processes`, `context_parallel`), on all machines together.

        Never more than this machine has if the job runs here, so that it starts and says what it lacks.
        """

        def resource(wildcards: Wildcards) -> int:
            if stage and self._only_takes(stage, wildcards):
                return 0
            settings = self.project.experiment(run_of_wildcards(dict(wildcards.items()))).settings
            ranks = settings.train.gpus if section == "train" else settings.sample.context_parallel
            here = not self._workflow.non_local_exec
            return self.gpu * (min(ranks, gpu_jobs(settings.runtime.device)) if here else ranks)

        return self._job_resources.same_for_all(resource, 0, lambda: not self.gpu)

    def resources(self, job: PlannedJob, stage: str = "") -> dict[str, Resource]:
        """Memory and time of a rule's jobs, for executors that ask for them (`hv15.workflow.job_resources`)."""
        return self._job_resources.resources(job, stage)

    def threads(self, job: PlannedJob) -> Callable[[Wildcards], int]:
        """The threads of a rule's jobs."""
        return self._job_resources.threads(job)

    @cached_property
    def _job_resources(self) -> JobResources:
        def samples(stage: str) -> int:
            shard = self._planner.shards.get(stage)
            return 1 if shard is None else len(shard.samples)

        return JobResources(self.project, self._workflow, samples)
