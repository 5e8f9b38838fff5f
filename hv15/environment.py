"""The environment variables by which the workflow tells its jobs which project they belong to."""

from __future__ import annotations

CONFIG_VARIABLE = "HV15_CONFIG"
"""The config file."""
OVERRIDES_VARIABLE = "HV15_OVERRIDES"
"""Settings given on the command line of the workflow, as JSON."""
