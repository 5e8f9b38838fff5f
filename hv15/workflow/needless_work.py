"""What Snakemake (9.27) computes again and again without a use for it, turned off once its settings are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.workflow import Workflow

_DEFAULT_LIMIT = (100, 1)
"""Snakemake's limit of jobs that start, and its seconds, where its command line and profile name none."""


def spare_needless_work(workflow: Workflow) -> None:
    """Turn off what is needless for this call. It has to come before the first job is made."""
    _select_only_at_ends(workflow)
    if workflow.dryrun:
        _print_no_commands(workflow)


def _select_only_at_ends(workflow: Workflow) -> None:
    """Let Snakemake look for jobs that can start only when one has ended.

    Because of the limit it looks again a second after each time, for as long as a job waits; and each job that ends
    begins one more such row. While 15 trainings wait for a core, it so looks some ten times a second. Nothing here
    comes near the limit. One that a person sets stays.
    """
    settings = workflow.scheduling_settings
    limit = None if settings is None else settings.max_jobs_per_timespan
    if limit is not None and (limit.max_jobs, limit.timespan) == _DEFAULT_LIMIT:
        settings.max_jobs_per_timespan = None


def _print_no_commands(workflow: Workflow) -> None:
    """Leave out the commands of a dry run's jobs, which are formatted three times each, unless something shows them."""
    is_shown = workflow.output_settings.printshellcmds or workflow.logger_manager.plugin_handlers
    is_compared = any(trigger.name == "CODE" for trigger in workflow.rerun_triggers)
    if not is_shown and not is_compared:
        for rule in workflow.rules:
            rule.shellcmd = None
