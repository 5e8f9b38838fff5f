"""What Snakemake would compute without a use for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from snakemake.cli import get_argument_parser
from snakemake.settings.enums import RerunTrigger
from snakemake.settings.types import MaxJobsPerTimespan, SchedulingSettings

from hv15.workflow.needless_work import spare_needless_work

if TYPE_CHECKING:
    from snakemake.workflow import Workflow


def limit_after(limit: str) -> tuple[int, float] | None:
    """The limit of jobs and its seconds with which Snakemake runs."""
    settings = SchedulingSettings(max_jobs_per_timespan=MaxJobsPerTimespan.parse_choice(limit))
    spare_needless_work(cast("Workflow", SimpleNamespace(scheduling_settings=settings, dryrun=False)))
    found = settings.max_jobs_per_timespan
    return None if found is None else (found.max_jobs, found.timespan)


def test_snakemakes_own_limit_does_not_make_it_look_for_jobs_each_second() -> None:
    assert limit_after(get_argument_parser().get_default("max_jobs_per_timespan")) is None
    assert limit_after("50/2s") == (50, 2), "one that a person sets stays"


@pytest.mark.parametrize(
    ("printed", "plugins", "triggers", "is_left_out"),
    [
        (False, [], {RerunTrigger.MTIME}, True),
        (True, [], {RerunTrigger.MTIME}, False),
        (False, ["a logger"], {RerunTrigger.MTIME}, False),
        (False, [], {RerunTrigger.MTIME, RerunTrigger.CODE}, False),
    ],
)
def test_a_dry_run_formats_only_commands_that_something_shows(
    printed: bool, plugins: list[str], triggers: set[RerunTrigger], is_left_out: bool
) -> None:
    rule = SimpleNamespace(shellcmd="true")
    workflow = SimpleNamespace(
        scheduling_settings=SchedulingSettings(),
        dryrun=True,
        rules=[rule],
        rerun_triggers=triggers,
        output_settings=SimpleNamespace(printshellcmds=printed),
        logger_manager=SimpleNamespace(plugin_handlers=plugins),
    )
    spare_needless_work(cast("Workflow", workflow))
    assert (rule.shellcmd is None) == is_left_out
    workflow.dryrun, rule.shellcmd = False, "true"
    spare_needless_work(cast("Workflow", workflow))
    assert rule.shellcmd == "true"
