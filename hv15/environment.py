"""The environment variables by which the workflow and its runs speak with their processes."""

from __future__ import annotations

CONFIG_VARIABLE = "HV15_CONFIG"
"""The config file."""
OVERRIDES_VARIABLE = "HV15_OVERRIDES"
"""Settings given on the command line of the workflow, as JSON."""
RUN_VARIABLE = "HV15_RUN"
"""Names the run to its jobs, and is how its processes are found again."""
EVENTS_VARIABLE = "HV15_EVENTS"
"""Names a file for the events of a dry run."""
OUTPUT_VARIABLE = "HV15_OUTPUT"
"""Names to the jobs the file that keeps their output too, in a run that `hv15 run` did not start (job.sh)."""
FAILURE_VARIABLE = "HV15_FAILURE"
"""Names to a job's command the file for its failure (job.sh)."""
SOURCE_VARIABLE = "HV15_SOURCE"
"""Names the clone that rules/environment.yaml installs from (hv15.home); a wheel has none."""
SAFE_PATH = "PYTHONSAFEPATH"
"""Python's own: with it, no child imports from the folder that it is started in."""
OF_A_RUN = (CONFIG_VARIABLE, OVERRIDES_VARIABLE, RUN_VARIABLE, EVENTS_VARIABLE, OUTPUT_VARIABLE, FAILURE_VARIABLE)
"""What no other run may inherit."""
