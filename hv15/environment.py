"""The environment variables that the workflow and its runs pass to their processes."""

from __future__ import annotations

CONFIG_VARIABLE = "HV15_CONFIG"
"""The config file."""
OVERRIDES_VARIABLE = "HV15_OVERRIDES"
"""Settings given on the command line of the workflow, as JSON."""
RUN_VARIABLE = "HV15_RUN"
"""The id of the run. Its processes are found again by it."""
NEW_RUN_VARIABLE = "HV15_NEW_RUN"
"""The id of the run that `hv15 run` is to start, for a caller that must know it beforehand."""
EVENTS_VARIABLE = "HV15_EVENTS"
"""A file for the events of a dry run."""
OUTPUT_VARIABLE = "HV15_OUTPUT"
"""The file that also gets the jobs' output, in a run that `hv15 run` did not start (job.sh)."""
FAILURE_VARIABLE = "HV15_FAILURE"
"""The file to which a job's command writes why it failed (job.sh)."""
RULE_VARIABLE = "HV15_RULE"
"""The rule of the job (job.sh)."""
SOURCE_VARIABLE = "HV15_SOURCE"
"""The clone that rules/environment.yaml installs from (hv15.home); not set for a wheel."""
SAFE_PATH = "PYTHONSAFEPATH"
"""Python's own variable: with it, no child process imports from the folder that it is started in."""
RUN_VARIABLES = (
    *(CONFIG_VARIABLE, OVERRIDES_VARIABLE, NEW_RUN_VARIABLE),
    *(RUN_VARIABLE, EVENTS_VARIABLE, OUTPUT_VARIABLE, FAILURE_VARIABLE, RULE_VARIABLE),
)
"""Variables that another run must not inherit."""
