"""What the Snakefile asks for: files, inputs and messages. The rules themselves only name files.

- workflow_project: the project as the rules see it
- asked: the runs and stages that targets ask for
- stages, sample_stages, model_stages, stage: every job, with what its product has to be made from
- made_from: what the products record about how they were made
- planner: what has to run, and how Snakemake is made to agree
- shards: jobs that make several samples
- why, encoding_reasons: the reasons, in words
- differences, dataset_changes, setting_names: what differs of two specs or datasets, in words
- outcome: what becomes of the training that is there, in words
- twins: what several experiments have in common is made once
- former: what was made before an experiment was renamed
- rule_names: the file names and messages of the rules
- comparing: the comparison of the experiments
- demo_clips: the demo's dataset
- command_line: what Snakemake's own command line changes
- job_environment: where the jobs find this hv15
- containers: the image that they run in
- refusals: how Snakemake ends where a person has to put something right
- job_resources: what the jobs ask an executor for
- needless_work: what Snakemake would compute without a use for it
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.collection import collect_rarely, paused_collection
from hv15.environment import SAFE_PATH
from hv15.errors import UserError, of_the_system
from hv15.project import Project
from hv15.project.remote import fetch_missing
from hv15.records.json_values import Json
from hv15.records.paths import ProjectPaths
from hv15.runs.events import record_events
from hv15.workflow.asked import asked_runs, make_planner, said_of
from hv15.workflow.command_line import changed_settings, settings_of_notices, without_reproduction
from hv15.workflow.containers import use_container
from hv15.workflow.demo_clips import make_demo_clips
from hv15.workflow.job_environment import find_command, name_source
from hv15.workflow.refusals import end_with
from hv15.workflow.rule_names import relative
from hv15.workflow.workflow_project import WorkflowProject

if TYPE_CHECKING:
    from snakemake.workflow import Workflow

__all__ = ["WorkflowProject", "asked_runs", "make_demo_clips", "make_planner", "open_project", "said_of"]


def open_project(workflow: Workflow, config: Mapping[str, Json]) -> WorkflowProject:
    """Open the project of a running Snakefile: config.yaml in the working directory, or the `--configfile`.

    Args:
        workflow: Snakemake's workflow object.
        config: what the command line gave: `--config` values, merged over the config file if one was named.

    Raises:
        SystemExit: anything a user can put right was said, in one message (`hv15.workflow.refusals`).
    """
    files = [Path(file) for file in workflow.overwrite_configfiles]
    recorder = record_events(workflow, settings_of_notices(files, config))
    config, asked = without_reproduction(config)
    try:
        file = relative(files[0]) if files else ProjectPaths().config
        project = Project(file, changed_settings(file, config) if files else config)
        opened = WorkflowProject(project, workflow, asked)
        if recorder is not None:
            recorder.why, opened.refused = opened.reason, recorder.refused
        os.environ.update(project.environment)  # through it, the jobs' commands find the same project
        os.environ[SAFE_PATH] = "1"
        name_source(workflow)
        find_command()
        opened.container = use_container(workflow, project.settings)
        if workflow.is_main_process:
            collect_rarely()
            fetch_missing(project)
            with paused_collection():
                opened.check()
    except (UserError, OSError) as error:
        if isinstance(error, OSError):
            if error.filename is None:
                raise
            error = of_the_system(error)
        end_with(workflow, error, recorder.refused if recorder is not None else None)
    return opened
